"""The store of decisions holds what it may, loses the oldest first, and says what it lost."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from scheduler.engine.columns import Columns
from scheduler.engine.planner import Planner
from scheduler.engine.request import PodRequest
from scheduler.explain.digest import STRATEGY_TOP_KEPT, TOP_KEPT, digest, thin
from scheduler.explain.errors import ExpiredError, UnknownPodError
from scheduler.explain.names import Names, NameTable, holds, unpack
from scheduler.explain.record import Binding, Verdict
from scheduler.explain.recorder import PENDING, Recorder
from scheduler.explain.store import Limits, Store
from scheduler.explain.views import show_scores, show_strategies
from tests.scheduler.nodes import mesh
from tests.scheduler.worlds import cluster, facts, planner, request

NODES = 200


def pod(number: int, name: str | None = None) -> PodRequest:
    """Ask for two GPUs under a name of its own."""
    return msgspec.structs.replace(request(2, uid=f"u{number}"), name=name or f"p{number}")


def wide() -> Planner:
    """Plan over many nodes, every third of them full."""
    return planner(
        cluster(**{f"n{at:03}": facts(mesh(4), occupied=15 * (at % 3 == 0)) for at in range(NODES)})
    )


def verdict(plan: Planner | None = None) -> Verdict:
    """Decide on one pod."""
    plan = plan or wide()
    names = [f"n{at:03}" for at in range(NODES)]
    decision = plan.decide(request(2), names, now=0.0)
    return digest(decision, plan.cluster, plan.profile_called(""), NameTable(), at=0.0)


BINDING = Binding(5.0, "n001", "confirmed", {"main": ("GPU-0",)}, 100.0, 0.1)


def test_a_record_is_found_until_its_time_is_over() -> None:
    """Counted from the last try; then it is said that there was one."""
    store = Store(Limits(seconds=10))
    store.note(pod(1), "refused", 0.0)
    store.note(pod(1), "planned", 5.0)
    assert store.find("default", "p1", 14.9).attempts == 2
    with pytest.raises(ExpiredError, match="its last decision is 10 s old"):
        store.find("default", "p1", 15.0)
    with pytest.raises(UnknownPodError):
        store.find("default", "p2", 15.0)


def test_since_is_the_first_try() -> None:
    """However often it is tried."""
    store = Store(Limits())
    for now in (3.0, 4.0, 9.0):
        store.note(pod(1), "refused", now)
    record = store.find("default", "p1", 9.0)
    assert (record.since, record.updated, record.attempts) == (3.0, 9.0, 3)


def test_of_one_name_the_newest_pod_is_found() -> None:
    """A pod of a StatefulSet comes again under its name, with another UID."""
    store = Store(Limits())
    store.note(pod(1, "same"), "refused", 0.0)
    store.note(pod(2, "same"), "planned", 1.0)
    assert store.find("default", "same", 1.0).request.uid == "u2"
    assert store.get("u1") is not None


def test_a_bound_pod_stays_bound() -> None:
    """A late filter call changes nothing any more."""
    store = Store(Limits())
    store.note(pod(1), "planned", 0.0)
    store.bound("u1", BINDING)
    store.note(pod(1), "refused", 6.0)
    assert store.find("default", "p1", 6.0).binding == BINDING


def test_a_pod_that_nobody_decided_on_is_not_recorded_by_its_bind() -> None:
    """There is nothing to tell of it."""
    assert Store(Limits()).bound("u1", BINDING) is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["none", "whole"]), st.integers(0, 3)),
        max_size=60,
    ),
    st.integers(1, 8),
    st.integers(10_000, 60_000),
)
def test_the_bounds_hold_whatever_comes(
    tries: list[tuple[int, str, int]], records: int, nbytes: int
) -> None:
    """Number, bytes and age; the count of bytes is the sum of what is there."""
    store = Store(Limits(seconds=20, records=records, nbytes=nbytes))
    now = 0.0
    for number, what, pause in tries:
        now += pause
        store.note(pod(number), "refused", now, verdict=WHOLE if what == "whole" else None)
        kept = list(store)
        assert store.nbytes == sum(record.nbytes for record in kept)
        assert len(kept) <= records
        assert store.nbytes <= nbytes or len(kept) == 1
        assert all(now - record.updated < 20 for record in kept)
        assert kept[0].request.uid == f"u{number}"
        times = [record.updated for record in kept]
        assert times == sorted(times, reverse=True)


WHOLE = verdict()


def test_the_oldest_lose_detail_before_any_goes() -> None:
    """Their best nodes stay, of the total and of each strategy."""
    small = thin(WHOLE)
    store = Store(Limits(nbytes=3 * WHOLE.nbytes))
    for number in range(3):
        store.note(pod(number), "planned", float(number), verdict=WHOLE)
    oldest = store.find("default", "p0", 3.0)
    assert oldest.verdict is not None
    assert not oldest.verdict.complete
    assert len(store) == 3
    newest = store.find("default", "p2", 3.0)
    assert newest.verdict is WHOLE
    assert oldest.verdict.nbytes == small.nbytes < WHOLE.nbytes


def test_a_thinned_verdict_tells_the_same_of_the_best() -> None:
    """The two views say what they said before, as far as they go."""
    whole, small = Store(Limits()), Store(Limits())
    one = whole.note(pod(1), "planned", 0.0, verdict=WHOLE)
    other = small.note(pod(1), "planned", 0.0, verdict=thin(WHOLE))
    assert show_scores(one, TOP_KEPT) == show_scores(other, TOP_KEPT)
    before, after = (show_strategies(record, STRATEGY_TOP_KEPT) for record in (one, other))
    for line, same in zip(before, after, strict=True):
        assert [host.score for host in line.host_priority] == [
            host.score for host in same.host_priority
        ]


def test_a_few_nodes_are_never_thinned() -> None:
    """What is at the top is everything."""
    plan = planner(cluster(a=facts(mesh(4)), b=facts(mesh(4))))
    decision = plan.decide(request(2), ["a", "b"], now=0.0)
    kept = digest(decision, plan.cluster, plan.profile_called(""), NameTable(), at=0.0)
    assert thin(kept).complete


def test_every_node_is_accepted_or_refused_once() -> None:
    """The record accounts for each node that was considered."""
    scores = WHOLE.scores
    assert scores is not None
    accepted = set(scores.ids.tolist())
    refused = [number for one in WHOLE.refusals for number in unpack(one.nodes).tolist()]
    assert len(refused) == len(set(refused))
    assert accepted.isdisjoint(refused)
    assert accepted | set(refused) == set(unpack(WHOLE.nodes).tolist())
    assert WHOLE.considered == len(accepted) + len(refused) == NODES


@given(st.sets(st.integers(0, 70), max_size=40))
def test_packed_sets_hold_what_was_packed(numbers: set[int]) -> None:
    """And nothing else."""
    table = NameTable()
    table.ids([f"n{number}" for number in range(71)])
    packed = table.pack(np.array(sorted(numbers), np.int32))
    assert set(unpack(packed).tolist()) == numbers
    assert {number for number in range(200) if holds(packed, number)} == numbers


@given(st.lists(st.tuples(st.sampled_from("+-?"), st.integers(0, 9)), max_size=30))
def test_rows_have_the_numbers_of_the_names_in_them(steps: list[tuple[str, int]]) -> None:
    """Whatever nodes came and went, and whoever got the row of one that is gone."""
    columns, table = Columns(), NameTable()
    for step, number in steps:
        name = f"n{number}"
        if step == "+":
            columns.put(name, facts(mesh(2)), (1000, 1000))
        elif step == "-":
            columns.drop(name)
        else:
            rows = np.array(list(columns.rows.values()), np.int64)
            numbered = table.ids_of_rows(columns, rows).tolist()
            assert [table.names[one] for one in numbered] == list(columns.rows)


def test_names_that_are_gone_do_not_stay_for_ever() -> None:
    """A table full of them is left to the records that still need it."""
    names = Names()
    table = names.table(10)
    table.ids([f"old-{number}" for number in range(2000)])
    assert names.table(10) is not table
    assert table.names[0] == "old-0"


def test_decisions_wait_until_the_loop_turns_but_not_in_any_number() -> None:
    """Each holds megabytes until it is worked up."""
    plan = planner(cluster(a=facts(mesh(4))))
    recorder = Recorder(Store(Limits()), plan)
    for number in range(PENDING + 2):
        recorder.decided(plan.decide(pod(number), ["a"], now=0.0), 0.0)
    assert len(recorder.store) == PENDING + 1
    recorder.settle()
    assert len(recorder.store) == PENDING + 2


def test_what_fails_in_recording_touches_nobody() -> None:
    """It is logged, and the next decision is recorded."""
    plan = planner(cluster(a=facts(mesh(4))))
    problems = iter([ValueError("broken")])

    def report(_: str) -> None:
        for problem in problems:
            raise problem

    recorder = Recorder(Store(Limits()), plan, report=report)
    for number in range(2):
        recorder.decided(plan.decide(pod(number), ["a"], now=0.0), 0.0)
    with capture_logs() as logged:
        recorder.settle()
    assert [line["event"] for line in logged] == ["a decision was not recorded"]
    assert [record.request.uid for record in recorder.store] == ["u1"]
