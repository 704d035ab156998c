"""What makes a GPU unhealthy, and by which rules it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.health.record import (
    LONGEST_HOLD,
    Fault,
    HealthRecord,
    fault_of_loss,
    fault_of_probe,
    fault_of_xid,
)
from deviceplugin.health.vitals import Condition, fault_of_condition
from deviceplugin.health.xids import RULES, Recovery, Response, rule_of

ECC = fault_of_condition(Condition.DOUBLE_BIT_ECC, {})
REFERENCE_IGNORES = {13, 31, 43, 45, 68, 109}


def test_the_reference_ignores_six() -> None:
    """The table keeps the reference's default beside ours: exactly six numbers are ignored."""
    ignored = {
        number for rule in RULES for number in rule.numbers if rule.reference is Response.IGNORE
    }
    assert ignored == REFERENCE_IGNORES


def test_every_number_has_one_rule() -> None:
    """No XID stands in two rules."""
    numbers = [number for rule in RULES for number in rule.numbers]
    assert len(numbers) == len(set(numbers))


def test_what_the_catalogue_answers_with_a_reset_is_unhealthy() -> None:
    """An action that resets or reboots costs the GPU, an application's restart does not."""
    for rule in RULES:
        if rule.action.startswith(("reset GPU", "drain", "reset or")):
            assert rule.response is Response.UNHEALTHY, rule
        if rule.action in {"restart app", "ignore"}:
            assert rule.response is not Response.UNHEALTHY, rule


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 8, 93])
def test_an_applications_fault_costs_no_gpu_by_the_catalogue(number: int) -> None:
    """What a workload does to itself is ignored."""
    assert rule_of(number).response is Response.IGNORE


@pytest.mark.parametrize("number", [13, 8, 94, 109])
def test_without_a_word_of_the_operator_the_reference_decides(number: int) -> None:
    """Who comes from there meets no surprise: six numbers are ignored, all others are not."""
    ignored = number in REFERENCE_IGNORES
    wanted = Response.IGNORE if ignored else Response.UNHEALTHY
    assert fault_of_xid(number, {}).response is wanted


@pytest.mark.parametrize("number", [48, 79, 64, 95, 119, 999, 4711])
def test_a_broken_or_unknown_gpu_is_unhealthy(number: int) -> None:
    """Hardware faults, and numbers that the catalogue does not have, make a GPU unhealthy."""
    fault = fault_of_xid(number, {})
    assert fault.response is Response.UNHEALTHY
    assert str(number) in fault.reason


@pytest.mark.parametrize("number", [79, 64])
def test_some_need_a_fresh_initialisation(number: int) -> None:
    """A GPU off the bus or out of spare rows is never trusted by the NVML that saw it fail."""
    assert rule_of(number).recovery is Recovery.REINIT


def test_the_operator_decides_in_the_end() -> None:
    """An override beats the table in both directions."""
    overrides = {79: Response.DEGRADE, 13: Response.UNHEALTHY}
    assert fault_of_xid(79, overrides).response is Response.DEGRADE
    assert fault_of_xid(13, overrides).response is Response.UNHEALTHY


def test_links_are_read_again_after_an_nvlink_fault() -> None:
    """NVLink XIDs ask for a rediscovery, others do not."""
    assert fault_of_xid(74, {}).rediscover
    assert fault_of_xid(145, {}).rediscover
    assert not fault_of_xid(48, {}).rediscover


def test_a_fault_that_is_ignored_leaves_no_trace() -> None:
    """Only unhealthy faults open a cause."""
    record = HealthRecord(hold=60)
    assert not record.note("g0", fault_of_xid(13, {}), 0, 1)
    assert not record.note("g0", fault_of_xid(63, {63: Response.DEGRADE}), 0, 1)
    assert record.unhealthy() == {}


def test_a_gpu_recovers_after_the_hold_time_of_passed_probes() -> None:
    """Probes must pass from the first to one that is the hold time later."""
    record = HealthRecord(hold=60)
    record.note("g0", ECC, 0, 1)
    assert record.unhealthy() == {"g0": "double-bit ECC error"}
    assert not record.passed("g0", 10, 1)
    assert not record.passed("g0", 69, 1)
    assert record.passed("g0", 70, 1)
    assert record.unhealthy() == {}


def test_a_fault_in_between_starts_the_hold_time_anew() -> None:
    """A GPU that fails again while it is held has to pass all over."""
    record = HealthRecord(hold=60)
    record.note("g0", ECC, 0, 1)
    record.passed("g0", 10, 1)
    record.note("g0", fault_of_probe("UNKNOWN"), 65, 1)
    assert not record.passed("g0", 75, 1)
    assert not record.passed("g0", 134, 1)
    assert record.passed("g0", 135, 1)


def test_a_lost_gpu_needs_a_younger_initialisation() -> None:
    """However long it passes: not before NVML was initialised after the loss."""
    record = HealthRecord(hold=60)
    record.note("g0", fault_of_loss("GPU_IS_LOST"), 0, 1)
    assert record.needs_reinit(1)
    assert not record.passed("g0", 10, 1)
    assert not record.passed("g0", 1000, 1)
    assert not record.needs_reinit(2)
    assert record.passed("g0", 1001, 2)


def test_a_replaced_gpu_is_forgotten() -> None:
    """What waits for a GPU that is gone for good asks NVML for nothing any more."""
    record = HealthRecord(hold=60)
    record.note("old", fault_of_loss("GPU_IS_LOST"), 0.0, 1)
    record.note("here", fault_of_xid(48, {}), 0.0, 1)
    record.forget_all_but({"here", "new"})
    assert not record.needs_reinit(1)
    assert record.unhealthy().keys() == {"here"}


def test_the_first_of_several_causes_is_the_reason() -> None:
    """A loss brings errors in its wake: what came first is told."""
    record = HealthRecord(hold=60)
    record.note("g0", fault_of_xid(79, {}), 0, 1)
    record.note("g0", fault_of_loss("GPU_IS_LOST"), 1, 1)
    assert record.unhealthy()["g0"].startswith("XID 79")


def test_a_gpu_that_fails_again_and_again_is_held_longer() -> None:
    """The hold time doubles with each failure after a recovery, up to a limit."""
    record = HealthRecord(hold=60)
    now, held = 0.0, []
    for _ in range(9):
        record.note("g0", ECC, now, 1)
        held.append(record.hold("g0"))
        record.passed("g0", now, 1)
        now += record.hold("g0")
        assert record.passed("g0", now, 1)
    assert held[:3] == [60, 120, 240]
    assert held[-1] == LONGEST_HOLD


def test_the_limit_of_the_hold_can_be_told() -> None:
    """The doubling ends there, and starts anew after as long without a fault."""
    record = HealthRecord(hold=4, longest=10)
    now = 0.0
    held = []
    for pause in (0.0, 0.0, 0.0, 11.0):
        now += pause
        record.note("g0", ECC, now, 1)
        held.append(record.hold("g0"))
        record.passed("g0", now, 1)
        now += record.hold("g0")
        assert record.passed("g0", now, 1)
    assert held == [4, 8, 10, 4]


def test_old_failures_are_forgotten() -> None:
    """A GPU that was well for as long as the longest hold starts with the first hold again."""
    record = HealthRecord(hold=60)
    for failed in (0.0, 100.0, 300.0 + LONGEST_HOLD + 1):
        record.note("g0", ECC, failed, 1)
        if failed < 200:
            record.passed("g0", failed, 1)
            assert record.passed("g0", failed + record.hold("g0"), 1)
    assert record.hold("g0") == 60


def test_the_first_failure_costs_others_nothing() -> None:
    """Holds are each GPU's own."""
    record = HealthRecord(hold=60)
    record.note("g0", ECC, 0, 1)
    assert record.unhealthy().keys() == {"g0"}
    assert not record.passed("g1", 100, 1)
    assert record.hold("g1") == 60


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["g0", "g1"]),
            st.sampled_from([None, ECC, fault_of_loss("x"), fault_of_xid(13, {})]),
            st.integers(0, 2),
        ),
        max_size=40,
    )
)
def test_no_gpu_recovers_within_the_hold_time_of_its_last_fault(
    events: list[tuple[str, Fault | None, int]],
) -> None:
    """Whatever happens: between a GPU's last fault and its recovery lies the hold time."""
    record = HealthRecord(hold=10)
    last: dict[str, float] = {}
    init, now = 1, 0.0
    for uuid, fault, reinit in events:
        now += 4
        init += reinit
        if fault is None:
            if record.passed(uuid, now, init):
                assert now - last[uuid] >= 10
                del last[uuid]
        elif record.note(uuid, fault, now, init):
            last[uuid] = now
        assert record.unhealthy().keys() == last.keys()
