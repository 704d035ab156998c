"""What is wrong with a GPU by what it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.health.vitals import CONDITIONS, Condition, fault_of_condition, judge, remember
from deviceplugin.health.xids import Response
from deviceplugin.nvml.interface import Vitals
from deviceplugin.nvml.library import open_nvml
from mock_nvml import MockNvml
from topology.catalogue import load_machine

WELL = Vitals(
    celsius=40, hot=False, double_bit_errors=2, remap_pending=False, remap_failed=False, links=18
)


def changed(**fields: object) -> Vitals:
    """Return the vitals of a well GPU with some changed."""
    values = {name: getattr(WELL, name) for name in WELL.__struct_fields__}
    return Vitals(**{**values, **fields})


CASES = [
    ({}, None),
    ({"double_bit_errors": 3}, Condition.DOUBLE_BIT_ECC),
    ({"remap_pending": True}, Condition.REMAP_PENDING),
    ({"remap_failed": True}, Condition.REMAP_FAILED),
    ({"hot": True, "celsius": 90}, Condition.THERMAL),
    ({"links": 17}, Condition.NVLINK_DOWN),
    ({"links": None, "double_bit_errors": None, "remap_pending": None}, None),
]


@pytest.mark.parametrize(("fields", "condition"), CASES)
def test_each_condition_is_read_from_the_vitals(
    fields: dict[str, object], condition: Condition | None
) -> None:
    """And what a GPU does not support is no fault."""
    keys = [fault.key for fault in judge(changed(**fields), WELL, {})]
    assert keys == ([] if condition is None else [str(condition)])


def test_the_first_answer_of_a_process_has_nothing_to_compare_with() -> None:
    """Old errors, and links that a board does not use, are not counted against the GPU."""
    assert judge(changed(double_bit_errors=7, links=3), None, {}) == ()
    assert judge(changed(remap_failed=True), None, {}) != ()


def test_a_reloaded_driver_counts_errors_anew() -> None:
    """A count that fell is no error."""
    assert judge(changed(double_bit_errors=0), WELL, {}) == ()


def test_the_most_links_ever_are_what_counts() -> None:
    """A link that stays down stays a flaw; one that comes up ends it."""
    down = changed(links=16)
    before = remember(down, WELL)
    assert [fault.reason for fault in judge(down, before, {})] == ["NVLink down, 16 of 18 are up"]
    assert judge(WELL, before, {}) == ()


def test_every_condition_has_a_rule_and_every_rule_can_be_overridden() -> None:
    """As the operator may decide of each XID."""
    assert CONDITIONS.keys() == set(Condition)
    for condition in Condition:
        overrides = {condition: Response.IGNORE}
        assert fault_of_condition(condition, {}).response is not Response.IGNORE
        assert fault_of_condition(condition, overrides).response is Response.IGNORE


_ANSWERS = st.builds(
    Vitals,
    celsius=st.none() | st.integers(0, 120),
    hot=st.none() | st.booleans(),
    double_bit_errors=st.none() | st.integers(0, 5),
    remap_pending=st.none() | st.booleans(),
    remap_failed=st.none() | st.booleans(),
    links=st.none() | st.integers(0, 18),
)


@given(st.lists(_ANSWERS, max_size=8))
def test_any_sequence_of_answers_can_be_judged(answers: list[Vitals]) -> None:
    """A fault for links only while fewer are up than ever before; None never counts as a fall."""
    before: Vitals | None = None
    most = 0
    for answer in answers:
        keys = {fault.key for fault in judge(answer, before, {})}
        fell = before is not None and answer.links is not None and answer.links < most
        assert (str(Condition.NVLINK_DOWN) in keys) == fell
        before = remember(answer, before)
        most = max(most, answer.links or 0)


def test_vitals_are_read_through_nvml() -> None:
    """Each from the call that tells it; a lost GPU is an error, not a well one."""
    with MockNvml(load_machine("hgx-h100-8x-ib")) as mock, open_nvml() as nvml:
        gpu = nvml.device(1)
        well = Vitals(34, False, 0, False, False, 18)
        assert nvml.vitals(gpu) == well
        mock.inject("link-down", gpu=1, link=4)
        mock.inject("thermal", gpu=1, celsius=91)
        mock.inject("remap", gpu=1, failed=True)
        mock.inject("ecc", gpu=1, count=3)
        assert nvml.vitals(gpu) == Vitals(91, True, 3, True, True, 17)


def test_what_a_product_lacks_is_none() -> None:
    """A GeForce has neither ECC nor NVLink; an old driver knows the clocks by the old name."""
    missing = frozenset(("nvmlDeviceGetCurrentClocksEventReasons",))
    with MockNvml(load_machine("rtx5090-8x"), missing=missing), open_nvml() as nvml:
        vitals = nvml.vitals(nvml.device(0))
    assert vitals == Vitals(celsius=34, hot=False)
