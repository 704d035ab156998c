"""Laws and cases of the preferred set and of what a container is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.admission.allocation import Circumstances, Request, Wanted, check_devices, plan
from deviceplugin.errors import (
    HeldDeviceError,
    RequestError,
    StrictRefusalError,
    UnhealthyDeviceError,
    UnknownDeviceError,
)
from deviceplugin.outcomes import Drift, Outcome
from tests.deviceplugin.nodes import CHOOSERS, DGX1V, PAIRS, RESOURCE, machine, names, stock_of
from topology.gpuset import gpuset
from topology.model import NodeTopology

NODE = machine(8, DGX1V)
ALL = names(*range(8))
CALM = Circumstances()

members = st.sets(st.integers(0, 7))


def _plan(
    request: Request,
    wanted: Wanted | None = None,
    circumstances: Circumstances = CALM,
    node: NodeTopology = NODE,
) -> tuple[tuple[str, ...], Outcome, Drift | None]:
    answer = plan(request, wanted or Wanted(), circumstances, node, CHOOSERS(node))
    return answer.uuids, answer.outcome, answer.drift


@given(available=members, wanted=members, held=members, promised=members, unhealthy=members)
def test_the_wanted_set_is_given_whenever_it_can_be(
    available: set[int], wanted: set[int], held: set[int], promised: set[int], unhealthy: set[int]
) -> None:
    """The set is exact if, and only if, all of it is offered, healthy and with nobody."""
    if not wanted or len(available - held) < len(wanted):
        return
    uuids, outcome, drift = _plan(
        Request(names(*available), (), len(wanted)),
        Wanted(names(*wanted)),
        Circumstances(gpuset(unhealthy), gpuset(held), gpuset(promised)),
    )
    possible = wanted <= available - held - unhealthy
    assert (outcome is Outcome.EXACT) == possible
    assert (drift is None) == possible
    if possible:
        assert set(uuids) == set(names(*wanted))


@given(data=st.data(), available=members, unhealthy=members, held=members, promised=members)
def test_every_answer_fits_the_request(
    data: st.DataObject,
    available: set[int],
    unhealthy: set[int],
    held: set[int],
    promised: set[int],
) -> None:
    """An answer has the size asked, no duplicate, only offered GPUs, and all that must be in it."""
    must = data.draw(st.sets(st.sampled_from(sorted(available)))) if available else set()
    size = data.draw(st.integers(max(1, len(must)), 8))
    wanted = data.draw(st.none() | members)
    request = Request(names(*available), names(*must), size)
    circumstances = Circumstances(gpuset(unhealthy), gpuset(held), gpuset(promised))
    free = available - (held - must)
    ask = Wanted(None if wanted is None else names(*wanted))
    if size > len(available):
        with pytest.raises(RequestError):
            _plan(request, ask, circumstances)
        return
    if size > len(free):
        with pytest.raises(HeldDeviceError):
            _plan(request, ask, circumstances)
        return
    uuids, _, _ = _plan(request, ask, circumstances)
    assert len(uuids) == size == len(set(uuids))
    assert set(names(*must)) <= set(uuids) <= set(names(*free))
    if size <= len(free - (unhealthy - must)):
        assert not set(uuids) & set(names(*(unhealthy - must)))


@given(available=members, promised=members, size=st.integers(1, 8))
def test_promised_gpus_are_taken_only_when_there_is_no_other_way(
    available: set[int], promised: set[int], size: int
) -> None:
    """Exactly as many promised GPUs are taken as unpromised ones are missing."""
    if size > len(available):
        return
    answer = plan(
        Request(names(*available), (), size),
        Wanted(),
        Circumstances(promised=gpuset(promised)),
        NODE,
        CHOOSERS(NODE),
    )
    taken = len(set(answer.uuids) & set(names(*promised)))
    assert max(0, size - len(available - promised)) == taken == answer.promised_taken


@given(available=members, wanted=members, size=st.integers(1, 8))
def test_under_drift_as_many_wanted_gpus_as_possible_are_kept(
    available: set[int], wanted: set[int], size: int
) -> None:
    """What was wanted and is offered is in the answer, as far as it has room."""
    if size > len(available):
        return
    uuids, _, _ = _plan(Request(names(*available), (), size), Wanted(names(*wanted)))
    kept = len(set(uuids) & set(names(*wanted)))
    assert min(size, len(wanted & available)) == kept


@given(order=st.permutations(range(8)), size=st.integers(1, 8))
def test_the_order_of_the_offer_does_not_matter(order: list[int], size: int) -> None:
    """The same set offered in any order gives the same answer."""
    assert _plan(Request(ALL, (), size)) == _plan(Request(names(*order), (), size))


@pytest.mark.parametrize(
    ("available", "must", "size", "expected"),
    [
        pytest.param((0, 2, 4, 5), (), 2, None, id="pair-among-four"),
        pytest.param((0, 3, 1), (), 2, (0, 3), id="double-link"),
        pytest.param((0, 1, 4), (), 2, (0, 4), id="across-sockets"),
        pytest.param(range(8), (4,), 1, (4,), id="must-alone"),
        pytest.param(range(8), (4,), 2, None, id="must-and-a-partner"),
        pytest.param(range(8), (0, 2, 4, 6), 4, (0, 2, 4, 6), id="must-is-all"),
    ],
)
def test_a_pod_without_a_set_gets_a_linked_one(
    available: tuple[int, ...],
    must: tuple[int, ...],
    size: int,
    expected: tuple[int, ...] | None,
) -> None:
    """On a DGX-1V the best set among what is offered is linked."""
    uuids, outcome, drift = _plan(Request(names(*available), names(*must), size))
    assert outcome is Outcome.BEST
    assert drift is None
    if expected is not None:
        assert uuids == names(*expected)
    else:
        first, second = (int(uuid[1:]) for uuid in uuids)
        assert (first, second) in DGX1V


def test_one_gpu_is_taken_where_it_hurts_least() -> None:
    """A single GPU comes from the pair that is broken already."""
    node = machine(8, PAIRS)
    uuids, _, _ = _plan(Request(names(0, 1, 2, 3, 5, 6, 7), (), 1), node=node)
    assert uuids == names(5)


def test_five_gpus_with_one_pair_and_a_request_for_three() -> None:
    """The case that crashes the reference gives three different GPUs, whatever is offered."""
    node = machine(5, {(0, 1): 1})
    for order in ((0, 1, 2, 3, 4), (4, 2, 0, 3, 1)):
        uuids, _, _ = _plan(Request(names(*order), (), 3), node=node)
        assert len(set(uuids)) == 3


def test_four_pods_in_a_row_get_four_double_links() -> None:
    """Successive pairs of a DGX-1V are all doubly linked: no choice spoils a later one."""
    left = set(ALL)
    for _ in range(4):
        uuids, _, _ = _plan(Request(tuple(left), (), 2))
        first, second = sorted(int(uuid[1:]) for uuid in uuids)
        assert DGX1V.get((first, second)) == 2
        left -= set(uuids)


@pytest.mark.parametrize(
    ("request_", "wanted", "circumstances", "drift"),
    [
        pytest.param(
            Request(names(0, 1, 2), (), 2),
            names(2, 3),
            CALM,
            Drift.NOT_OFFERED,
            id="kubelet-narrowed-the-offer",
        ),
        pytest.param(
            Request(ALL, (), 2),
            names(2, 3),
            Circumstances(held=gpuset([3])),
            Drift.NOT_OFFERED,
            id="another-pod-has-it",
        ),
        pytest.param(
            Request(ALL, (), 2),
            names(2, 3),
            Circumstances(unhealthy=gpuset([3])),
            Drift.UNHEALTHY,
            id="it-has-failed",
        ),
        pytest.param(Request(ALL, (), 3), names(2, 3), CALM, Drift.WRONG_SIZE, id="wrong-size"),
        pytest.param(
            Request(ALL, names(7), 2), names(2, 3), CALM, Drift.MUST_INCLUDE, id="kubelet-insists"
        ),
        pytest.param(
            Request(ALL, (), 2), ("g2", "gX"), CALM, Drift.BROKEN_ANNOTATION, id="unknown-gpu"
        ),
        pytest.param(
            Request(ALL, (), 2), ("g2", "g2"), CALM, Drift.BROKEN_ANNOTATION, id="named-twice"
        ),
    ],
)
def test_each_reason_of_drift_has_its_name(
    request_: Request, wanted: tuple[str, ...], circumstances: Circumstances, drift: Drift
) -> None:
    """A set that cannot be had names the reason; a strict pod is refused with it."""
    _, outcome, named = _plan(request_, Wanted(wanted), circumstances)
    assert (outcome, named) == (Outcome.DRIFT, drift)
    with pytest.raises(StrictRefusalError, match=str(drift)):
        _plan(request_, Wanted(wanted, strict=True), circumstances)


def test_a_strict_pod_with_its_exact_set_is_served() -> None:
    """Strict refuses drift, not the pod."""
    uuids, outcome, _ = _plan(Request(ALL, (), 2), Wanted(names(6, 1), strict=True))
    assert (uuids, outcome) == (names(1, 6), Outcome.EXACT)


def test_a_drift_that_came_with_the_question_is_kept() -> None:
    """Whoever could not be identified gets the best set, and the reason is not lost."""
    uuids, outcome, drift = _plan(Request(names(0, 3, 1), (), 2), Wanted(None, Drift.NO_POD))
    assert (uuids, outcome, drift) == (names(0, 3), Outcome.DRIFT, Drift.NO_POD)


def test_failed_gpus_are_better_than_held_ones() -> None:
    """With too few healthy GPUs kubelet's own check of health decides, but nothing is shared."""
    circumstances = Circumstances(unhealthy=gpuset([1, 2]), held=gpuset([0]))
    uuids, _, _ = _plan(Request(names(0, 1, 2), (), 2), circumstances=circumstances)
    assert uuids == names(1, 2)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Request(ALL, (), 0), id="nothing-asked"),
        pytest.param(Request(ALL, (), -1), id="less-than-nothing"),
        pytest.param(Request(ALL, (), 9), id="more-than-there-are"),
        pytest.param(Request(names(0, 1), names(2), 1), id="must-not-offered"),
        pytest.param(Request(ALL, names(0, 1), 1), id="must-larger-than-size"),
        pytest.param(Request(("gX",), ("gX",), 1), id="must-unknown"),
        pytest.param(Request(("gX", "gY"), (), 1), id="only-unknown"),
    ],
)
def test_a_request_that_contradicts_itself_is_an_error(request_: Request) -> None:
    """Impossible sizes and must-sets are named as such."""
    with pytest.raises(RequestError):
        _plan(request_)


def test_unknown_ids_in_the_offer_are_left_out() -> None:
    """An offer may still name a device of a former list."""
    assert _plan(Request(("gX", "g0", "g3"), (), 2))[0] == names(0, 3)


def test_one_id_is_given_as_it_was_asked() -> None:
    """Devices come back in kubelet's order; what they are called outside is not decided here."""
    resource = stock_of(NODE).resource(RESOURCE)
    assert [one.id for one in check_devices(("g5", "g1"), resource, {})] == ["g5", "g1"]


def test_what_cannot_be_given_is_refused_by_name() -> None:
    """Unknown, failed and held ids are errors that name the id."""
    resource = stock_of(NODE, {"g1": "XID 79"}).resource(RESOURCE)
    with pytest.raises(UnknownDeviceError, match="gX"):
        check_devices(("g0", "gX"), resource, {})
    with pytest.raises(UnhealthyDeviceError, match="g1"):
        check_devices(("g1",), resource, {})
    with pytest.raises(HeldDeviceError, match=r"g2 .* d/other"):
        check_devices(("g2",), resource, {"g2": "d/other"})
