"""Where pods go, and with which GPUs: kube-scheduler, extender, plugins and kubelets together.

After each case three things hold, whatever it was about: no GPU is in two running containers, each
container sees what its pod's annotation names, and each node's state says what runs there.
"""

from __future__ import annotations

import pytest

from tests.contract.cluster import Cluster, PodPlan
from tests.contract.scheduling import (
    PATIENCE,
    all_run,
    bound,
    check_exact,
    pods,
    refused,
    settled,
    submit,
)
from tests.waiting import wait_until
from topology.wire import GPU_MODEL_KEY, MIN_LINK_KEY

NO_SET = "gputopo: no set of the node's free GPUs meets the pod's demands"


def plain(name: str, gpus: int) -> PodPlan:
    """Return a pod of the cluster's own scheduler, which knows nothing of sets."""
    return PodPlan(name, {"main": gpus}, scheduler="default-scheduler")


V100 = {GPU_MODEL_KEY: "*V100*"}


def test_pods_of_all_sizes_run_with_exactly_their_sets(cluster: Cluster) -> None:
    """28 of 32 GPUs in pods of 1 to 8, submitted at once: all run, each with its own set."""
    plans = [
        *pods("eight", 8, count=1),
        *pods("four", 4, count=2),
        PodPlan("twins", {"a": 2, "b": 2}),
        *pods("pair", 2, count=2),
        *pods("single", 1, count=4),
    ]
    submit(cluster, plans)
    check_exact(cluster, plans)


def test_the_cluster_may_be_filled_to_the_last_gpu(cluster: Cluster) -> None:
    """32 GPUs in pods of 2; one more waits, and runs when another has gone."""
    plans = pods("full", 2, count=16)
    submit(cluster, plans)
    check_exact(cluster, plans)
    late = PodPlan("late", {"main": 2})
    submit(cluster, [late])
    refused(cluster, late, "Insufficient nvidia.com/gpu")
    cluster.delete("full-3")
    check_exact(cluster, [late])


def test_pods_of_another_scheduler_are_worked_around(cluster: Cluster) -> None:
    """Pods bound without a set get GPUs beside the sets; theirs are given to nobody else."""
    own = pods("own", 2, count=4)
    submit(cluster, own)
    check_exact(cluster, own)
    foreign = [plain(f"foreign-{number}", 2) for number in range(4)]
    submit(cluster, foreign)
    all_run(cluster, foreign)
    assert all(cluster.set_of(plan.name) is None for plan in foreign)
    more = pods("more", 4, count=2)
    submit(cluster, more)
    check_exact(cluster, [*own, *more])


def test_a_race_with_another_scheduler_gives_no_gpu_twice(cluster: Cluster) -> None:
    """Who binds at the same moment may cost a pod its set, but never its GPUs or its start."""
    plans = [
        plan
        for number in range(5)
        for plan in (plain(f"theirs-{number}", 2), PodPlan(f"ours-{number}", {"main": 2}))
    ]
    submit(cluster, plans)
    all_run(cluster, plans)
    seen = settled(cluster)
    assert {name: len(seen[name]["main"]) for name in seen} == {plan.name: 2 for plan in plans}


def test_a_demand_that_no_node_meets_is_told_once_in_constant_words(cluster: Cluster) -> None:
    """kube-scheduler's FailedScheduling carries our reason, and is not written again and again."""
    plan = PodPlan("linked", {"main": 2}, notes={MIN_LINK_KEY: "NV36"})
    submit(cluster, [plan])
    refused(cluster, plan, f"4 {NO_SET}")
    wait_until(
        lambda: any(NO_SET in note for _, note in cluster.events("linked")),
        PATIENCE,
        "the event",
    )
    assert {reason for reason, _ in cluster.events("linked")} == {"FailedScheduling"}
    version = cluster.version("linked")
    other = PodPlan("other", {"main": 1})
    submit(cluster, [other])
    check_exact(cluster, [other])
    assert cluster.version("linked") == version


def test_gpu_init_containers_of_another_size_are_refused(cluster: Cluster) -> None:
    """Kubelet would share their GPUs out at random; equal ones of the only container are fine."""
    bad = PodPlan("bad", {"main": 1}, init={"warm": 2})
    good = PodPlan("good", {"main": 2}, init={"warm": 2})
    submit(cluster, [bad, good])
    refused(
        cluster,
        bad,
        "gputopo: init containers with GPUs are only possible "
        "with one container that requests as many GPUs",
    )
    check_exact(cluster, [good])


def test_a_drained_node_gets_nothing(cluster: Cluster) -> None:
    """Pods of a cordoned node run on, new ones go to its equal; uncordoned it is used again."""
    first = PodPlan("first", {"main": 4}, notes=V100)
    submit(cluster, [first])
    node = bound(cluster, first)
    cluster.cordon(node)
    plans = pods("next", 4, count=2, notes=V100)
    submit(cluster, plans)
    check_exact(cluster, [first, *plans])
    assert {cluster.node_of(plan.name) for plan in plans} == {"n1", "n2"} - {node}
    last = PodPlan("last", {"main": 4}, notes=V100)
    submit(cluster, [last])
    refused(cluster, last, "node(s) were unschedulable")
    cluster.cordon(node, on=False)
    check_exact(cluster, [first, *plans, last])
    assert cluster.node_of("last") == node


def test_a_lost_gpu_sends_pending_pods_elsewhere(cluster: Cluster) -> None:
    """Eight V100 are on one node only while the other lacks one; then on both again."""
    cluster.lose_gpu("n1", 5)
    wait_until(lambda: cluster.allocatable("n1") == 7, PATIENCE, "7 GPUs in node.status")
    first, second = pods("whole", 8, count=2, notes=V100)
    submit(cluster, [first])
    assert bound(cluster, first) == "n2"
    submit(cluster, [second])
    refused(cluster, second, "Insufficient nvidia.com/gpu")
    small = PodPlan("small", {"main": 1}, only="n1")
    submit(cluster, [small])
    check_exact(cluster, [first, small])
    assert "n1/5" not in cluster.running()["small"]["main"]
    cluster.delete("small")
    cluster.heal_gpus("n1")
    check_exact(cluster, [first, second])


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_preferred_affinity_decides_between_equal_nodes(cluster: Cluster, node: str) -> None:
    """The shortlist holds both equal nodes, so the pod goes where its author would have it."""
    plan = PodPlan("rather", {"main": 4}, notes=V100, prefers=node)
    submit(cluster, [plan])
    check_exact(cluster, [plan])
    assert cluster.node_of("rather") == node


def test_preferred_affinity_does_not_beat_faster_links(cluster: Cluster) -> None:
    """A node that is no equal is not in the shortlist, however much it is preferred."""
    plan = PodPlan("slower", {"main": 4}, prefers="n4")
    submit(cluster, [plan])
    check_exact(cluster, [plan])
    assert cluster.node_of("slower") == "n3"


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_soft_taint_decides_between_equal_nodes(cluster: Cluster, node: str) -> None:
    """PreferNoSchedule sends the pod to the other equal node, unless it tolerates it."""
    cluster.taint(node, "PreferNoSchedule")
    plan = PodPlan("shy", {"main": 4}, notes=V100)
    submit(cluster, [plan])
    check_exact(cluster, [plan])
    assert cluster.node_of("shy") == ({"n1", "n2"} - {node}).pop()


def test_a_hard_taint_is_kube_schedulers_business(cluster: Cluster) -> None:
    """Only a pod that tolerates it gets the fast machine behind a NoSchedule taint."""
    cluster.taint("n3", "NoSchedule")
    plain = PodPlan("plain", {"main": 8})
    brave = PodPlan("brave", {"main": 8}, tolerates=("contract",))
    submit(cluster, [plain, brave])
    check_exact(cluster, [plain, brave])
    assert cluster.node_of("plain") in {"n1", "n2"}
    assert cluster.node_of("brave") == "n3"


def test_a_higher_priority_evicts_a_lower_one(cluster: Cluster) -> None:
    """The victim's GPUs are given on only when its node has shown them free."""
    low = [PodPlan(f"low-{n}", {"main": 4}, only="n3", priority=10) for n in range(2)]
    submit(cluster, low)
    check_exact(cluster, low)
    peer = PodPlan("peer", {"main": 4}, only="n3", priority=10)
    submit(cluster, [peer])
    refused(cluster, peer, "Insufficient nvidia.com/gpu")
    cluster.delete("peer")
    high = PodPlan("high", {"main": 4}, only="n3", priority=1000)
    submit(cluster, [high])
    check_exact(cluster, [high])

    def left() -> list[PodPlan]:
        return [plan for plan in low if cluster.phase(plan.name)[0]]

    wait_until(lambda: len(left()) == 1, PATIENCE, "one victim, and no more, to be gone")
    check_exact(cluster, [high, *left()])


def test_no_more_is_evicted_than_a_pod_needs(cluster: Cluster) -> None:
    """Two victims of one node, although their GPUs are free only some time after they are gone."""
    low = pods("low", 4, count=8, priority=10)
    submit(cluster, low)
    check_exact(cluster, low)
    high = PodPlan("high", {"main": 8}, priority=1000)
    submit(cluster, [high])
    all_run(cluster, [high])

    def left() -> list[PodPlan]:
        return [plan for plan in low if cluster.phase(plan.name)[0]]

    wait_until(lambda: len(left()) <= 6, PATIENCE, "the victims to be gone")
    check_exact(cluster, [high, *left()])
    assert len(left()) == 6
