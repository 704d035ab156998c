"""What scheduling survives: dead leaders, late Bindings, lost answers, expired watches, an outage.

After each case the same three things hold as in test_scheduling.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.contract.cluster import MACHINES, Binding, Cluster, PodPlan
from tests.contract.scheduling import (
    PATIENCE,
    all_run,
    check_exact,
    pods,
    refused,
    submit,
)
from tests.waiting import wait_until
from topology.wire import MIN_LINK_KEY

WAITING: Final = 200
UPDATES: Final = 5
PROBE_TRIES: Final = 3
"""A pod that is refused is tried on arrival and for its own condition, by some once more."""
CALM_ROUNDS: Final = 2
IMPOSSIBLE: Final = {MIN_LINK_KEY: "NV36"}


def held_binding(cluster: Cluster, plan: PodPlan) -> Binding:
    """Submit a pod and wait until its Binding is held; return that."""
    cluster.bindings("held")
    submit(cluster, [plan])
    wait_until(cluster.waiting_bindings, PATIENCE, "the Binding")
    return cluster.waiting_bindings()[0]


@pytest.mark.parametrize("winner", ["dead", "alive"])
def test_a_leader_dies_between_reserve_and_binding(cluster: Cluster, winner: str) -> None:
    """The other leader chooses for itself; whoever's Binding comes first counts, with one set.

    The later one's is refused by the API server, and its GPUs are free again.
    """
    plan = PodPlan("orphan", {"main": 4})
    late = held_binding(cluster, plan)
    cluster.kill_leader()
    wait_until(lambda: len(cluster.waiting_bindings()) == 2, PATIENCE, "the other's Binding")
    (fresh,) = (one for one in cluster.waiting_bindings() if one.pair != late.pair)
    first, second = (late, fresh) if winner == "dead" else (fresh, late)
    cluster.release(first.pair)
    wait_until(lambda: cluster.node_of("orphan"), PATIENCE, "the pod to be bound")
    cluster.release(second.pair)
    check_exact(cluster, [plan])
    assert cluster.node_of("orphan") == first.node
    assert cluster.set_of("orphan") == first.sets
    rest = pods("rest", 4, count=7)
    submit(cluster, rest)
    check_exact(cluster, [plan, *rest])


def test_a_binding_that_takes_too_long_is_waited_for(cluster: Cluster) -> None:
    """kube-scheduler's retries join the Binding that is on its way: one, with one set."""
    plan = PodPlan("slow", {"main": 4})
    before = cluster.bind_calls()
    binding = held_binding(cluster, plan)
    wait_until(lambda: cluster.bind_calls() >= before + 2, PATIENCE, "a retry")
    assert cluster.waiting_bindings() == (binding,)
    cluster.release()
    check_exact(cluster, [plan])
    assert cluster.set_of("slow") == binding.sets
    rest = pods("rest", 4, count=7)
    submit(cluster, rest)
    check_exact(cluster, [plan, *rest])


def test_an_answer_that_kube_scheduler_does_not_wait_for_binds_all_the_same(
    cluster: Cluster,
) -> None:
    """Its httpTimeout passes, the pod is bound: its GPUs are counted, by it and by the extender."""
    cluster.bind_answers("withheld")
    plan = PodPlan("unheard", {"main": 4})
    submit(cluster, [plan])
    wait_until(cluster.abandoned_binds, PATIENCE, "kube-scheduler to give up waiting")
    check_exact(cluster, [plan])
    cluster.release()
    rest = pods("rest", 4, count=7)
    submit(cluster, rest)
    check_exact(cluster, [plan, *rest])


def test_a_retry_after_a_lost_answer_finds_the_pod_bound(cluster: Cluster) -> None:
    """The API server's 409 is success when the pod is bound with the set that was sent."""
    before = cluster.count("bind_total", outcome="already_bound")
    plan = PodPlan("twice", {"main": 4})
    binding = held_binding(cluster, plan)
    # Nobody is to hear of it but by asking.
    cluster.hold_watches()
    cluster.bindings("lost")
    wait_until(lambda: cluster.node_of("twice"), PATIENCE, "the pod to be bound")
    cluster.bindings("free")
    wait_until(
        lambda: cluster.count("bind_total", outcome="already_bound") == before + 1,
        PATIENCE,
        "a retry to find it bound",
    )
    cluster.release()
    check_exact(cluster, [plan])
    assert cluster.set_of("twice") == binding.sets


def test_watches_that_are_too_old_are_begun_anew(cluster: Cluster) -> None:
    """After 410 Gone the extender knows what went and what came meanwhile."""
    old = pods("old", 4, count=8)
    submit(cluster, old)
    check_exact(cluster, old)
    before = cluster.expired_watches()
    cluster.cut_watches()
    for plan in old[:4]:
        cluster.delete(plan.name)
    wait_until(lambda: not any(cluster.phase(plan.name)[0] for plan in old[:4]), PATIENCE)
    foreign = [PodPlan(f"foreign-{n}", {"main": 2}, scheduler="default-scheduler") for n in (0, 1)]
    submit(cluster, foreign)
    all_run(cluster, foreign)
    cluster.forget_history()
    cluster.release()
    wait_until(lambda: cluster.expired_watches() >= before + 4, PATIENCE, "both pairs' 410s")
    new = pods("new", 2, count=6)
    submit(cluster, new)
    check_exact(cluster, [*old[4:], *new])


def test_pods_that_wait_outlive_the_api_server_s_absence(cluster: Cluster) -> None:
    """When it is back, room that comes free is given to them, with their sets."""
    running = pods("running", 4, count=8)
    submit(cluster, running)
    check_exact(cluster, running)
    waiting = pods("waiting", 4, count=2)
    submit(cluster, waiting)
    for plan in waiting:
        refused(cluster, plan, "Insufficient nvidia.com/gpu")
    before = cluster.vain_requests()
    cluster.stop_api()
    wait_until(lambda: cluster.vain_requests() >= before + 10, PATIENCE, "it to be missed")
    cluster.start_api()
    for plan in running[:2]:
        cluster.delete(plan.name)
    check_exact(cluster, [*running[2:], *waiting])


def test_an_extender_that_is_restarted_gives_nothing_twice(cluster: Cluster) -> None:
    """It learns from pods and nodes what is taken before it answers."""
    # In whatever order they come, one of four nodes has room for the last one.
    bound = [*pods("bound", 4, count=2), *pods("odd", 1, count=3)]
    submit(cluster, bound)
    cluster.restart_extender()
    more = [*pods("more", 4, count=2), *pods("pair", 2, count=2)]
    submit(cluster, more)
    check_exact(cluster, [*bound, *more])


def test_pods_that_wait_are_not_tried_in_a_loop(cluster: Cluster) -> None:
    """200 pods that no node suits are tried once an event, and rest when there is none.

    kube-scheduler cannot know what helps a pod that an extender has refused, so each event of a
    node or bound pod wakes each such pod once: tries <= pods x events. What may not happen is that
    a refusal is an event itself, which it is when its text changes.
    """
    web = PodPlan("web", {"main": 0})
    submit(cluster, [web])
    all_run(cluster, [web])
    waiting = pods("wait", 2, count=WAITING, notes=IMPOSSIBLE)
    submit(cluster, waiting)
    for plan in waiting:
        refused(cluster, plan, "4 gputopo: ")
    quiet(cluster, "first")
    versions = [cluster.version(plan.name) for plan in waiting]
    before = cluster.count("filter_total")
    known = cluster.count("filter_total", outcome="repeated")
    for number in range(UPDATES):
        cluster.annotate("web", f"turn {number}")
    wait_until(
        lambda: cluster.count("filter_total") - before >= WAITING, PATIENCE, "the pods to be tried"
    )
    rounds = quiet(cluster, "second")
    tries = cluster.count("filter_total") - before
    assert tries <= WAITING * UPDATES + rounds * PROBE_TRIES
    # Nothing of ours has changed, so nothing is decided anew: that is what makes them cheap.
    assert cluster.count("filter_total", outcome="repeated") - known >= tries - PROBE_TRIES
    assert [cluster.version(plan.name) for plan in waiting] == versions


def quiet(cluster: Cluster, name: str) -> int:
    """Wait until the queue is at rest; return how many pods were needed to see it.

    A scheduler that has nothing else to do tries whom an event has woken. So if, while two new pods
    come and are refused one after the other, nobody else is tried, nobody else is to be.
    """
    rounds = calm = 0

    def is_calm() -> bool:
        nonlocal rounds, calm
        before = cluster.count("filter_total")
        probe = PodPlan(f"{name}-{rounds}", {"main": 2}, notes=IMPOSSIBLE)
        submit(cluster, [probe])
        refused(cluster, probe, "4 gputopo: ")
        rounds += 1
        calm = calm + 1 if cluster.count("filter_total") - before <= PROBE_TRIES else 0
        return calm == CALM_ROUNDS

    wait_until(is_calm, PATIENCE, "the queue to come to rest")
    return rounds


def test_a_pod_that_no_eviction_helps_evicts_nobody_and_rests(cluster: Cluster) -> None:
    """Of higher priority than all that run, it asks for links that no node has, free or not."""
    low = [PodPlan(f"low-{node}", {"main": 1}, only=node, priority=10) for node in MACHINES]
    submit(cluster, low)
    check_exact(cluster, low)
    high = PodPlan("high", {"main": 2}, priority=1000, notes=IMPOSSIBLE)
    submit(cluster, [high])
    refused(cluster, high, "4 gputopo: ")
    quiet(cluster, "probe")
    version = cluster.version("high")
    cluster.annotate("low-n1", "an event")
    quiet(cluster, "other")
    assert cluster.version("high") == version
    check_exact(cluster, low)
