"""The published protocol on clusters small enough to follow by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scheduler.simulation.arrivals import order_arrivals
from scheduler.simulation.boards import Boards
from scheduler.simulation.classes import target_workload
from scheduler.simulation.cluster import MOST_PODS, Cluster, View
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.measures import measure
from scheduler.simulation.placers import NOWHERE, RatingPlacer, pick
from scheduler.simulation.policies.framework import Rating, Steadfast, Ties
from scheduler.simulation.replay import Course, replay
from traces.openb import Node, Task, TaskClass

WHOLE = TaskClass(1000, 1, 1, 1000)
HALF = TaskClass(1000, 1, 1, 500)
PAIR = TaskClass(1000, 1, 2, 1000)
CPU = TaskClass(1000, 1, 0, 0)


def dice() -> np.random.Generator:
    """Make the same dice each time."""
    return np.random.default_rng(7)


def node(
    name: str, gpus: int = 2, *, cpu: int = 8000, memory: int = 100, model: str = "T4"
) -> Node:
    """Make a node."""
    return Node(name, cpu, memory, gpus, model)


class Flat(Steadfast):
    """All nodes alike: what is left is the rule for ties."""

    name = "flat"

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Rate all alike."""
        return Rating(np.zeros(len(view)))


def replay_flat(nodes: list[Node], kinds: list[TaskClass]) -> tuple[Cluster, Course]:
    """Replay with nothing but the rule for ties."""
    cluster = Cluster(nodes)
    placer = RatingPlacer(cluster, nodes, Boards(), Flat(), dice())
    return cluster, replay(cluster, kinds, placer)


def named(kinds: list[TaskClass]) -> list[Task]:
    """Give tasks names."""
    return [Task(f"p{at:04}", kind) for at, kind in enumerate(kinds)]


def test_a_list_that_is_too_small_is_followed_by_draws_from_it() -> None:
    """First all tasks once, in random order, then draws; the next would exceed the target."""
    tasks = named([WHOLE] * 5 + [CPU] * 5)
    order = order_arrivals(tasks, 20_000, dice())
    assert Counter(order[:10]) == {WHOLE: 5, CPU: 5}
    assert sum(kind.gpu_milli for kind in order) == 20_000
    assert set(order[10:]) <= {WHOLE, CPU}


def test_a_list_that_is_too_large_loses_tasks() -> None:
    """Just so many are left out that the target is not exceeded; the rest keeps its order."""
    tasks = named([WHOLE, PAIR] * 50)
    order = order_arrivals(tasks, 60_000, dice())
    total = sum(kind.gpu_milli for kind in order)
    assert 58_000 < total <= 60_000
    everything = iter(order_arrivals(tasks, 150_000, dice()))
    assert all(kind in everything for kind in order)


def test_the_order_of_rows_does_not_matter() -> None:
    """Tasks are sorted by name before they are shuffled."""
    tasks = named([WHOLE, HALF, CPU, PAIR] * 4)
    assert order_arrivals(tasks, 9000, dice()) == order_arrivals(tasks[::-1], 9000, dice())


def test_a_list_without_gpus_cannot_reach_a_load() -> None:
    """It is refused instead of drawn from for ever."""
    with pytest.raises(ReplayError, match="no task of the list asks for a GPU"):
        order_arrivals(named([CPU]), 1000, dice())


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (WHOLE, [True, True, False, True]),
        (PAIR, [True, False, False, False]),
        (HALF, [True, True, False, True]),
        (CPU, [True, True, True, True]),
        (TaskClass(8001, 1, 0, 0), [False, False, False, True]),
        (TaskClass(1, 101, 0, 0), [False, False, False, False]),
        (TaskClass(1, 1, 1, 1000, ("A10", "P100")), [False, False, False, True]),
    ],
)
def test_feasible_nodes(task: TaskClass, expected: list[bool]) -> None:
    """CPU, memory, models and GPUs with enough free share decide."""
    nodes = [node("a"), node("b", 1), node("c", 0), node("d", 1, cpu=9000, model="P100")]
    assert expected == View(Cluster(nodes), np.arange(4)).feasible(task).tolist()


def test_a_node_takes_so_many_pods_and_no_more() -> None:
    """The limit on pods is a limit like any other."""
    nodes = [node("a", cpu=10**9, memory=10**9)]
    _, course = replay_flat(nodes, [CPU] * (MOST_PODS + 1))
    assert course.rows.tolist() == [0] * MOST_PODS + [NOWHERE]


def test_the_first_node_of_the_permutation_wins_a_tie() -> None:
    """As published, whatever the names."""
    scores = np.array([1.0, 2.0, -np.inf, 2.0])
    assert pick(scores, Ties.FIRST, np.array([3, 2, 1, 0]), dice()) == 1


def test_the_first_name_wins_a_tie() -> None:
    """Our rule: the order of rows does not count."""
    scores = np.array([1.0, 2.0, -np.inf, 2.0])
    assert pick(scores, Ties.NAME, np.array([3, 2, 1, 0]), dice()) == 3


def test_ties_may_be_drawn() -> None:
    """Each of the best nodes is drawn sometimes, no other ever."""
    scores = np.array([1.0, 2.0, -np.inf, 2.0])
    throw = dice()
    drawn = {pick(scores, Ties.RANDOM, np.arange(4), throw) for _ in range(50)}
    assert drawn == {1, 3}


def test_no_node_is_no_row() -> None:
    """A task that fits nowhere goes nowhere."""
    assert pick(np.full(3, -np.inf), Ties.FIRST, np.arange(3), dice()) == NOWHERE


def test_shares_go_to_the_tightest_gpu_and_whole_tasks_to_the_lowest_idle() -> None:
    """600, 700 and 300 fill two GPUs, 100 stands in the tighter one, then the third is whole."""
    kinds = [TaskClass(1, 1, 1, share) for share in (600, 700, 300, 250, 1000)]
    _, course = replay_flat([node("a", 4)], kinds)
    assert course.share.tolist() == [
        [400, 1000, 1000, 1000],
        [400, 300, 1000, 1000],
        [400, 0, 1000, 1000],
        [150, 0, 1000, 1000],
        [150, 0, 0, 1000],
    ]


def test_a_dropped_task_changes_nothing() -> None:
    """It counts as failed, and the next one finds the cluster as it was."""
    _, course = replay_flat([node("a", 2)], [WHOLE, PAIR, WHOLE])
    assert course.rows.tolist() == [0, NOWHERE, 0]


def test_figures_are_means_over_arrivals_of_a_rounded_load() -> None:
    """Two arrivals at 100 % of one GPU: 0.996 and 1.0 of it asked for, then all is taken."""
    kinds = [TaskClass(1, 1, 1, share) for share in (760, 236, 4)]
    cluster, course = replay_flat([node("a", 1)], kinds)
    outcome = measure(course, cluster, target_workload([WHOLE], cluster.models), 100)
    assert [outcome.unallocated_pct[x] for x in ("76", "100")] == [24.0, 0.2]
    assert [outcome.fragmented_pct[x] for x in ("76", "100")] == [24.0, 0.2]
    assert outcome.failed == 0


def test_waste_is_counted_for_the_whole_cluster() -> None:
    """An untouched node wastes nothing for whole GPUs, all for a model that it has not."""
    nodes = [node("a", 1), node("b", 1, model="P100")]
    cluster, course = replay_flat(nodes, [TaskClass(1, 1, 1, 400)] * 4)
    tasks = [WHOLE, TaskClass(1000, 1, 1, 1000, ("T4",))]
    workload = target_workload(tasks, cluster.models)
    outcome = measure(course, cluster, workload, 80)
    # 1.6 asked of 2: 80 % load; a has 0.2 left, no use for anyone; b has 0.2 left.
    assert outcome.fragmented_pct["80"] == pytest.approx(20.0)
    assert outcome.unallocated_pct["80"] == pytest.approx(20.0)


def test_failures_are_counted() -> None:
    """What found no node is not allocated."""
    cluster = Cluster([node("a", 1)])
    rows, cpu = np.array([0, NOWHERE]), np.array([7, 0])
    course = Course([WHOLE, WHOLE], rows, cpu, np.zeros((2, 1), int), np.zeros(2))
    outcome = measure(course, cluster, target_workload([WHOLE], cluster.models), 200)
    assert outcome.failed == 1
    assert outcome.unallocated_pct["200"] == 0.0


def test_each_percent_has_a_figure() -> None:
    """Where no arrival rounds to a load, the last one before counts."""
    kinds = [TaskClass(1, 1, 1, share) for share in (770, 30)]
    cluster, course = replay_flat([node("a", 1)], kinds)
    outcome = measure(course, cluster, target_workload([WHOLE], cluster.models), 82)
    figures = {"75": 100.0, "76": 100.0, "77": 23.0, "78": 23.0, "79": 23.0}
    assert outcome.unallocated_pct == figures | {"80": 20.0, "81": 20.0, "82": 20.0}
