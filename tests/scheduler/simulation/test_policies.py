"""Each policy's scores equal those of a slow oracle; ours knows nothing of orders."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.cycle import schedule
from scheduler.engine.outlook import Outlook
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE
from scheduler.engine.waste import Workload
from scheduler.engine.workload import (
    GivenWorkload,
    LearnedWorkload,
    MachineGroup,
    PodClass,
    PodMix,
    count_classes,
    machine_pressure,
    trim_mix,
)
from scheduler.simulation.arrivals import order_arrivals
from scheduler.simulation.boards import Boards
from scheduler.simulation.classes import kinds_of, pod_class, pod_request, target_workload
from scheduler.simulation.cluster import Cluster, View
from scheduler.simulation.fleet import Fleet
from scheduler.simulation.policies.catalogue import POLICIES, Surroundings, make_placer
from scheduler.simulation.policies.fgd import Fgd
from scheduler.simulation.policies.framework import Policy, tightest
from scheduler.simulation.policies.published import BestFit, Clustering, DotProduct, Packing
from scheduler.simulation.policies.stock import StockScheduler
from scheduler.simulation.replay import replay
from scheduler.simulation.runs import run_once
from tests.scheduler.simulation import oracle
from topology.gpuset import gpuset
from traces.openb import Node, Task, TaskClass

# Examples are clusters with tasks on them: a few tell as much as many, in less time.
few = settings(max_examples=25, deadline=None)

MODELS = ("G2", "P100", "T4")
SHARES = (50, 190, 320, 470, 500, 810)


@st.composite
def tasks(draw: st.DrawFn) -> TaskClass:
    """Draw a task's class."""
    gpus = draw(st.sampled_from([0, 1, 1, 1, 2, 4]))
    share = draw(st.sampled_from([*SHARES, 1000])) if gpus == 1 else 1000 * bool(gpus)
    models = draw(st.sets(st.sampled_from(MODELS), max_size=2)) if gpus else set()
    return TaskClass(
        cpu_milli=draw(st.sampled_from([0, 1000, 3152, 8000, 12_000])),
        memory_mib=draw(st.sampled_from([1, 512, 4096])),
        gpus=gpus,
        share_milli=share,
        models=tuple(sorted(models)),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster and put some tasks on it."""
    nodes = [
        Node(
            f"n{at}",
            draw(st.sampled_from([8000, 32_000, 96_000])),
            draw(st.sampled_from([4096, 65_536])),
            draw(st.sampled_from([0, 1, 2, 4, 8])),
            draw(st.sampled_from(MODELS)),
        )
        for at in range(draw(st.integers(1, 5)))
    ]
    cluster = Cluster(nodes)
    for task in draw(st.lists(tasks(), max_size=12)):
        fitting = np.flatnonzero(View(cluster, np.arange(len(nodes))).feasible(task))
        if len(fitting):
            row = int(draw(st.sampled_from(fitting.tolist())))
            able = np.flatnonzero(cluster.share[row] >= max(task.share_milli, 1))
            cluster.place(row, task, gpuset(able[: task.gpus].tolist()))
    return cluster


def mix_of(list_: list[TaskClass], coverage: float = 0.95) -> PodMix:
    """Return the list's mix."""
    return trim_mix(count_classes(map(pod_class, list_)), coverage)


def states(cluster: Cluster) -> list[oracle.State]:
    """Return the cluster as the oracle sees it."""
    return [
        oracle.State(
            cpu=int(cluster.cpu[row]),
            memory=int(cluster.memory[row]),
            shares=tuple(cluster.share[row, : cluster.gpus[row]].tolist()),
            model=cluster.models[cluster.model[row]],
            cpu_capacity=int(cluster.cpu_capacity[row]),
            memory_capacity=int(cluster.memory_capacity[row]),
            groups={
                key: int(cluster.group_pods[row, column]) for key, column in cluster.groups.items()
            },
        )
        for row in range(len(cluster))
    ]


def feasible_view(cluster: Cluster, task: TaskClass) -> View:
    """Return the view of the nodes that can take the task."""
    fits = View(cluster, np.arange(len(cluster))).feasible(task)
    return View(cluster, np.flatnonzero(fits))


@few
@given(clusters(), st.lists(tasks(), min_size=1, max_size=8))
def test_waste_is_the_formula(cluster: Cluster, list_: list[TaskClass]) -> None:
    """The look-up by CPU level equals the sum over classes."""
    mix = mix_of(list_, 1.0)
    got = Workload(mix, kinds_of(cluster.models)).waste(cluster.cpu, cluster.share, cluster.model)
    assert got == pytest.approx([oracle.waste(state, mix) for state in states(cluster)])


@few
@given(clusters(), tasks(), st.lists(tasks(), min_size=1, max_size=8))
def test_fgd_is_the_formula(cluster: Cluster, task: TaskClass, list_: list[TaskClass]) -> None:
    """Whole points of the sigmoid, and the lowest GPU of the best."""
    mix = mix_of(list_)
    view = feasible_view(cluster, task)
    rating = Fgd(Workload(mix, kinds_of(cluster.models))).rate(view, task)
    for place, row in enumerate(view.rows):
        points = oracle.fgd(states(cluster)[row], task, mix)
        whole = {at: math.floor(value + 1e-9) for at, value in points.items()}
        near = any(abs(value - round(value)) < 1e-7 for value in points.values())
        if not near:
            assert rating.scores[place] == max(whole.values())
            if rating.devices is not None:
                assert rating.devices[place] == min(
                    at for at, value in whole.items() if value == max(whole.values())
                )


@pytest.mark.parametrize(
    ("policy", "formula"),
    [
        (DotProduct(), oracle.dotprod),
        (BestFit(), oracle.bestfit),
        (Clustering(), oracle.clustering),
        (Packing(), oracle.packing),
        (StockScheduler(), oracle.kube),
    ],
    ids=["dotprod", "bestfit", "clustering", "packing", "kube"],
)
@few
@given(cluster=clusters(), task=tasks())
def test_published_scores_are_their_formulas(
    policy: Policy,
    formula: Callable[[oracle.State, TaskClass], float],
    cluster: Cluster,
    task: TaskClass,
) -> None:
    """Cut down to whole numbers; a number at the edge may fall on either side."""
    view = feasible_view(cluster, task)
    scores = policy.rate(view, task).scores
    everyone = states(cluster)
    for place, row in enumerate(view.rows):
        exact = formula(everyone[row], task)
        assert exact - 1 - 1e-6 <= scores[place] <= exact + 1e-6
        assert scores[place] == int(scores[place])


def fleet_of(cluster: Cluster, list_: list[TaskClass]) -> Fleet:
    """Return the cluster as the engine sees it, with the list as the expected workload."""
    nodes = [
        Node(
            name,
            int(cluster.cpu_capacity[row]),
            int(cluster.memory_capacity[row]),
            int(cluster.gpus[row]),
            cluster.models[cluster.model[row]] if cluster.gpus[row] else "",
        )
        for row, name in enumerate(cluster.names)
    ]
    fleet = Fleet(nodes, Boards(), GivenWorkload(count_classes(map(pod_class, list_))))
    for row, node in enumerate(nodes):
        cpu = node.cpu_milli - int(cluster.cpu[row])
        memory = node.memory_mib - int(cluster.memory[row])
        fleet.take(row, TaskClass(cpu, memory, 0, 0), gpuset(()))
        for at in range(node.gpus):
            taken = 1000 - int(cluster.share[row, at])
            if taken:
                fleet.take(row, TaskClass(0, 0, 1, taken), gpuset([at]))
    return fleet


@few
@given(clusters(), tasks(), st.lists(tasks(), min_size=1, max_size=8))
def test_our_score_is_the_formula(
    cluster: Cluster, task: TaskClass, list_: list[TaskClass]
) -> None:
    """The live engine's default: limited gain, less free CPU, less stranded GPU, less pressure."""
    mix = mix_of(list_)
    fleet = fleet_of(cluster, list_)
    groups = [
        MachineGroup(kind, int(cluster.gpus[row]), int(cluster.cpu_capacity[row]))
        for row, kind in enumerate(kinds_of([cluster.models[at] for at in cluster.model]))
    ]
    pressure = machine_pressure(mix_of(list_, 1.0), groups, cluster.gpus * 1000.0)
    decision = schedule(
        built_in(),
        fleet.state.view(fleet.names),
        pod_request(task),
        BUILT_IN[DEFAULT_PROFILE],
        at=0,
        vetted=False,
    )
    fits = View(cluster, np.arange(len(cluster))).feasible(task)
    assert decision.accepted.tolist() == np.flatnonzero(fits).tolist()
    everyone = states(cluster)
    raw = {scored.plugin: scored.raw for scored in decision.scores}
    total = raw["fragmentation"] + raw["balance"] + raw["model_fit"] if raw else []
    for place, row in enumerate(decision.accepted.tolist()):
        exact = oracle.gputopo(everyone[row], task, mix, float(pressure[row]))
        assert total[place] == pytest.approx(max(exact.values()), abs=1e-5)
        option = next((o for o in decision.shortlist if o.node == cluster.names[row]), None)
        if option is not None and task.shares:
            # On equal GPUs rounding may choose either.
            device = option.choice.members.bit_length() - 1
            assert exact[device] == pytest.approx(max(exact.values()), abs=1e-5)


def test_the_tightest_gpu_is_the_lowest_of_equals() -> None:
    """The least free share that is enough."""
    share = np.array([[1000, 500, 300, 500], [400, 400, 0, 1000]])
    assert tightest(share, 400).tolist() == [1, 0]


def test_the_target_is_the_most_frequent_classes() -> None:
    """Classes are taken until 95 % of the tasks are covered, then scaled to 1."""
    frequent = [TaskClass(cpu, 1, 1, 1000) for cpu in (1, 2, 2, 2)] * 10
    frequent += [TaskClass(2, 2, 1, 1000)] * 8
    rare = [TaskClass(9, 1, 1, 1000)] * 2
    mix = mix_of(frequent + rare)
    assert mix == {
        PodClass(2, 1, 1000): pytest.approx(38 / 48),
        PodClass(1, 1, 1000): pytest.approx(10 / 48),
    }


def test_pressure_is_bound_demand_over_supply() -> None:
    """Half of the demand names T4, which is a quarter of the cluster: twice what there is."""
    mix = {PodClass(1, 1, 1000): 0.5, PodClass(1, 1, 1000, ("A10", "T4")): 0.5}
    groups = [MachineGroup(kind, 1, 8) for kind in kinds_of(["G2", "T4"])]
    assert machine_pressure(mix, groups, np.array([3000.0, 1000.0])).tolist() == [0.0, 2.0]


def test_pressure_is_on_machines_that_can_take_the_task() -> None:
    """A T4 without the CPU for it is not asked: all of the demand is on the other."""
    mix = {PodClass(6, 1, 1000): 0.5, PodClass(6, 1, 1000, ("T4",)): 0.5}
    (kind,) = kinds_of(["T4"])
    groups = [MachineGroup(kind, 1, 4), MachineGroup(kind, 1, 8)]
    assert machine_pressure(mix, groups, np.array([1000.0, 1000.0])).tolist() == [0.0, 1.0]


def sample_tasks(count: int) -> list[Task]:
    """Make a list with something of everything."""
    dice = np.random.default_rng(3)
    kinds = [
        TaskClass(3152, 1024, 1, 810),
        TaskClass(3152, 1024, 1, 470),
        TaskClass(6000, 2048, 1, 160),
        TaskClass(11_400, 2048, 1, 1000),
        TaskClass(11_400, 2048, 1, 1000, ("T4",)),
        TaskClass(32_000, 2048, 2, 1000),
        TaskClass(12_500, 4096, 0, 0),
    ]
    return [Task(f"p{at:03}", kinds[dice.integers(len(kinds))]) for at in range(count)]


SAMPLE_NODES = [
    Node(f"n{at:02}", 16_000 * gpus, 65_536 * gpus, gpus, model)
    for at, (gpus, model) in enumerate([(8, "G2"), (2, "T4"), (4, "P100"), (2, "T4"), (1, "G2")])
]


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_outcomes(policy: str) -> None:
    """Whatever the order of the lists' rows."""
    tasks_ = sample_tasks(60)
    first = run_once(SAMPLE_NODES, tasks_, policy, seed=5, load=1.3)
    assert first == run_once(SAMPLE_NODES[::-1], tasks_[::-1], policy, seed=5, load=1.3)
    assert [str(x) for x in range(75, 131)] == list(first.unallocated_pct)


@pytest.mark.parametrize("policy", ["gputopo", "gputopo-learned", "training"])
def test_ours_does_not_depend_on_the_order_of_nodes(policy: str) -> None:
    """Each task goes to the node of the same name, however the rows stand."""
    tasks_ = sample_tasks(60)
    arrivals = order_arrivals(tasks_, 22_000, np.random.default_rng(1))
    placed = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        nodes = [SAMPLE_NODES[at] for at in order]
        cluster = Cluster(nodes)
        kinds = [task.kind for task in tasks_]
        workload = target_workload(kinds, cluster.models)
        around = Surroundings(nodes, kinds, workload, cluster, Boards(), np.random.default_rng(1))
        course = replay(cluster, arrivals, make_placer(policy, around))
        placed.append([cluster.names[row] if row >= 0 else "" for row in course.rows])
    assert placed[0] == placed[1]


def test_a_learned_workload_is_what_arrived() -> None:
    """After many arrivals the waste is measured against their mix, not against anything else."""
    kinds = [task.kind for task in sample_tasks(400)]
    cluster = Cluster(SAMPLE_NODES)
    learned = LearnedWorkload()
    outlook = Outlook(fleet_of(cluster, kinds).state.columns, learned)
    for kind in kinds:
        outlook.observe(pod_request(kind))
    assert 10 < learned.version < 40
    assert learned.seen == 400
    columns = fleet_of(cluster, kinds).state.columns
    got = outlook.workload().waste(
        columns.cpu[:5], columns.share[:5], outlook.kinds(columns.hardware[:5])
    )
    mix = mix_of(kinds[:350])
    state = states(cluster)
    for row, waste in enumerate(got):
        assert waste == pytest.approx(oracle.waste(state[row], mix), rel=0.2)


def test_old_arrivals_fade() -> None:
    """A class that no longer comes leaves the target."""
    learned = LearnedWorkload(half_life=20)
    old, new = TaskClass(1000, 1, 1, 1000), TaskClass(1000, 1, 1, 500)
    for kind in [old] * 200 + [new] * 200:
        learned.observe(pod_class(kind))
    assert list(trim_mix(learned.counts())) == [PodClass(1000, 1, 500)]


def test_a_class_is_seen_without_memory() -> None:
    """Memory is no part of the measure."""
    assert pod_class(TaskClass(1, 2, 1, 500, ("T4",))) == PodClass(1, 1, 500, ("T4",))
