"""Tasks that depart: waiting, and what it costs, on clusters small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from scheduler.engine.workload import GivenWorkload
from scheduler.simulation.boards import Boards
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.dynamic import (
    Departures,
    Stay,
    Stream,
    choose_nodes,
    keep_possible,
    make_stream,
    run_stream,
)
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.fleet import Fleet
from scheduler.simulation.placers import EnginePlacer, Placer, RatingPlacer
from scheduler.simulation.policies.published import BestFit
from scheduler.simulation.runs import run_departures
from traces.openb import Node, Task, TaskClass, Times

ONE = TaskClass(1000, 1, 1, 1000)
PAIR = TaskClass(1000, 1, 2, 1000)
HALF = TaskClass(1000, 1, 1, 500)
NODE = Node("a", 8000, 100, 2, "T4")


def placers(nodes: list[Node]) -> list[tuple[Cluster, Placer]]:
    """Return a published policy and the engine, each on its cluster."""
    one, other = Cluster(nodes), Cluster(nodes)
    fleet = Fleet(nodes, Boards(), GivenWorkload({}))
    return [
        (one, RatingPlacer(one, nodes, Boards(), BestFit(), np.random.default_rng(1))),
        (other, EnginePlacer(other, fleet, built_in(), BUILT_IN["gputopo"])),
    ]


def run(stream: Stream, nodes: list[Node]) -> Departures:
    """Run a stream under both kinds of placers, which must agree."""
    outcomes = [run_stream(cluster, stream, placer) for cluster, placer in placers(nodes)]
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_nobody_waits_where_there_is_room() -> None:
    """One departs before the next arrives: nothing is lost."""
    outcome = run(Stream([Stay(0, 5, PAIR), Stay(5, 5, PAIR)], 20), [NODE])
    assert (outcome.waited_pct, outcome.lost_pct, outcome.unfinished) == (0.0, 0.0, 0)


def test_waiting_and_the_gpu_time_that_it_costs() -> None:
    """The second pair waits 8 s of 10; within the span of 12 s it gets 2 of its 5 s."""
    outcome = run(Stream([Stay(0, 10, PAIR), Stay(2, 5, PAIR)], 12), [NODE])
    assert outcome.waited_pct == 50.0
    assert outcome.mean_wait_seconds == 4.0
    assert outcome.multi_gpu_wait_seconds == 4.0
    assert outcome.lost_pct == pytest.approx(100 * 6 / 30)


def test_whoever_waits_longest_and_fits_is_next() -> None:
    """One GPU comes free: the pair that waits longest does not fit, so the single goes."""
    stays = [Stay(0, 4, ONE), Stay(0, 90, ONE), Stay(1, 1, PAIR), Stay(2, 1, ONE), Stay(3, 1, ONE)]
    outcome = run(Stream(stays, 50), [NODE])
    # The singles run at 4 and 5 after 2 s each, the pair never.
    assert outcome.unfinished == 1
    assert outcome.mean_wait_seconds == pytest.approx((0 + 0 + 49 + 2 + 2) / 5)


def test_several_may_start_when_one_departs() -> None:
    """Two halves take the place of one."""
    stays = [Stay(0, 4, PAIR), Stay(1, 1, HALF), Stay(2, 1, HALF), Stay(3, 9, ONE)]
    outcome = run(Stream(stays, 20), [NODE])
    assert outcome.unfinished == 0
    assert outcome.mean_wait_seconds == pytest.approx((3 + 2 + 1) / 4)


def test_tasks_that_fit_no_empty_node_are_left_out() -> None:
    """They would wait for ever, whatever the policy."""
    huge = TaskClass(9000, 1, 1, 1000)
    kept, impossible = keep_possible(
        Stream([Stay(0, 1, ONE), Stay(1, 1, huge)], 5), Cluster([NODE])
    )
    assert ([stay.kind for stay in kept.stays], impossible) == ([ONE], 1)


def timed(count: int) -> list[Task]:
    """Make tasks, one a second, that run half a second after they came."""
    return [Task(f"p{at:03}", ONE, Times(at, at + 10.5, at + 0.5)) for at in range(count)]


def test_a_stream_is_copies_that_are_shifted_and_wrapped() -> None:
    """Each copy has all tasks but the first twentieth; lives are from when a task began."""
    stream = make_stream(timed(100), 3, np.random.default_rng(1))
    assert len(stream.stays) == 3 * 95
    arrivals = [stay.arrives for stay in stream.stays]
    assert arrivals == sorted(arrivals)
    assert 0 <= arrivals[0] <= arrivals[-1] < stream.span
    assert {stay.life for stay in stream.stays} == {10.0}
    assert stream.mean_gpus == pytest.approx(30, rel=0.1)


def test_a_list_without_times_cannot_depart() -> None:
    """It is refused, as the lists with many GPUs are."""
    with pytest.raises(ReplayError, match="no task of the list has times"):
        make_stream([Task("p", ONE)], 1, np.random.default_rng(1))


def test_the_part_of_the_nodes_fits_the_load() -> None:
    """So many GPUs that their mean use would be the load."""
    stream = Stream([Stay(0, 10, ONE), Stay(0, 10, ONE), Stay(0, 10, ONE)], 10)
    nodes = [Node(f"n{at}", 8000, 100, 2, "T4") for at in range(9)]
    assert len(choose_nodes(nodes, stream, 0.5)) == 3
    with pytest.raises(ReplayError, match="too many for these nodes at a load of 0\\.1"):
        choose_nodes(nodes, stream, 0.1)


@pytest.mark.parametrize("policy", ["random", "fgd", "gputopo", "gputopo-learned"])
def test_equal_seeds_give_equal_departures(policy: str) -> None:
    """Whatever the order of the lists' rows."""
    nodes = [Node(f"n{at}", 4000, 100, 2, "T4") for at in range(20)]
    tasks = timed(60)
    outcomes = [
        run_departures(order(nodes), order(tasks), policy, seed=4, load=1.3, copies=2)
        for order in (list, lambda rows: rows[::-1])
    ]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].waited_pct > 0
