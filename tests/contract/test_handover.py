"""The set that a pod was bound with reaches its container, through whatever happens on the node."""

from __future__ import annotations

import random

import pytest

from tests.contract.checks import bind_all, check_exact, drift, one, sees, settled, unbound
from tests.contract.world import PodPlan, World
from tests.waiting import wait_until

ADMISSION_SECONDS = 2.5
"""The bound of a metric's bucket just above the 2 s that an admission may take."""


def test_pods_of_any_size_get_their_sets(world: World) -> None:
    """One GPU or four: each container sees the GPUs that its pod was bound with, and no drift."""
    before = drift(world)
    pods = [one("single", 6), one("pair", 0, 3), one("four", 1, 2, 5, 7)]
    bind_all(world, pods)
    check_exact(world, pods)
    assert drift(world) == before


def test_two_containers_of_a_pod_get_their_own_sets(world: World) -> None:
    """Containers of equal size, and a sidecar, are told apart by their names."""
    pods = [
        PodPlan("twins", {"a": 2, "b": 2}, {"a": (6, 7), "b": (0, 3)}),
        PodPlan("aided", {"side": 1, "main": 1}, {"side": (5,), "main": (4,)}, sidecars=("side",)),
        PodPlan("idle", {"a": 0, "b": 2}, {"b": (1, 2)}),
    ]
    bind_all(world, pods)
    check_exact(world, pods)


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_pods_bound_at_once_are_not_confused(world: World, seed: int) -> None:
    """Six pods of one size, bound in shuffled order: nobody gets another one's GPU."""
    chance = random.Random(seed)
    gpus = chance.sample(range(8), 6)
    pods = [one(f"equal{seed}-{number}", gpu) for number, gpu in enumerate(gpus)]
    chance.shuffle(pods)
    bind_all(world, pods)
    check_exact(world, pods)


def test_a_node_may_be_filled_to_its_last_gpu(world: World) -> None:
    """Eight GPUs in sets that no kubelet would choose by itself; a ninth has no room."""
    pods = [one("f0", 0, 7), one("f1", 1, 6), one("f2", 2, 5), one("f3", 3), one("f4", 4)]
    bind_all(world, pods)
    check_exact(world, pods)
    world.bind(unbound("ninth", 1))
    wait_until(lambda: world.phase("ninth")[0] == "Failed", what="the ninth to be rejected")
    settled(world)


def test_gpus_that_come_back_are_given_again(world: World) -> None:
    """A pod that takes over the GPUs of one that ended gets exactly them."""
    for turn in range(3):
        pods = [one(f"turn{turn}a", 0, 3, 4, 7), one(f"turn{turn}b", 1, 2, 5, 6)]
        bind_all(world, pods)
        check_exact(world, pods)
        for pod in pods:
            world.delete(pod.name)
        wait_until(lambda: not world.held(), what="the GPUs to come back")
    settled(world)


def test_pods_without_a_set_leave_promised_gpus_alone(world: World) -> None:
    """Bound together: a pod of another scheduler never takes what ours were promised."""
    pods = [one("ours0", 0, 3), one("ours1", 1, 2), one("ours2", 7)]
    before = drift(world)
    for pod, foreign in zip(pods, ("x0", "x1", "x2"), strict=True):
        world.bind(unbound(foreign, 1))
        world.bind(pod)
    for foreign in ("x0", "x1", "x2"):
        sees(world, foreign)
    seen = {name: sees(world, name)["main"] for name in ("ours0", "ours1", "ours2")}
    taken = settled(world)
    assert len(taken) == 6
    # A pod that was bound before another one's Binding cannot spare it: then it is counted.
    missed = sum(seen[pod.name] != set((pod.sets or {})["main"]) for pod in pods)
    assert missed == drift(world) - before


def test_a_restarted_container_keeps_its_set(world: World) -> None:
    """Kubelet replays its answer of before: no pod that comes meanwhile gets any of it."""
    pod = one("phoenix", 2, 6)
    world.bind(pod)
    check_exact(world, [pod])
    world.crash("phoenix", "main")
    other = one("other", 0, 1, 3, 4, 5, 7)
    world.bind(other)
    wait_until(lambda: world.starts("phoenix") == 2, what="the restart")
    wait_until(lambda: "phoenix" in world.running(), what="phoenix to run again")
    check_exact(world, [pod, other])


def test_a_killed_plugin_goes_on_where_it_was(world: World) -> None:
    """Running pods keep their sets, and the state's generation does not fall behind."""
    old = [one("old0", 0, 3), one("old1", 5)]
    bind_all(world, old)
    check_exact(world, old)
    before = world.state()
    world.kill_plugin()
    wait_until(lambda: world.allocatable() == 0, what="kubelet to withdraw the GPUs")
    check_exact(world, old)
    world.start_plugin()
    new = [one("new0", 1, 2), one("new1", 4, 6, 7)]
    bind_all(world, new)
    check_exact(world, [*old, *new])
    after = world.state()
    assert before is not None
    assert after is not None
    assert after.generation > before.generation


def test_pods_bound_while_the_plugin_is_away_take_nothing(world: World) -> None:
    """Kubelet rejects what comes meanwhile; afterwards the same GPUs are there to be had."""
    old = one("stays", 0, 3)
    world.bind(old)
    check_exact(world, [old])
    world.kill_plugin()
    wait_until(lambda: world.allocatable() == 0, what="kubelet to withdraw the GPUs")
    world.bind(one("early", 1, 2))
    wait_until(lambda: world.phase("early")[0] == "Failed", what="the rejection")
    world.start_plugin()
    late = one("late", 1, 2)
    world.bind(late)
    check_exact(world, [old, late])


@pytest.mark.parametrize(
    "fault", ["restart_kubelet", "renew_kubelet_socket", "delete_plugin_socket"]
)
def test_kubelet_and_sockets_may_come_and_go(world: World, fault: str) -> None:
    """The plugin registers again by itself; the state never says that a GPU in use is free."""
    name = fault.replace("_", "-")
    old = [one(f"{name}-old", 0, 7), unbound(f"{name}-foreign", 1)]
    bind_all(world, old)
    foreign = sees(world, old[1].name)["main"]
    check_exact(world, old[:1])
    alive = {world.uid(pod.name) for pod in old}
    before = world.registrations()

    def registered() -> bool:
        state = world.state()
        assert state is not None
        assert alive <= state.allocations.keys()
        return world.registrations() > before

    getattr(world, fault)()
    wait_until(registered, what="a registration")
    wait_until(world.ready, what="readiness")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    left = sorted({*range(8)} - {0, 7} - foreign)
    new = [one(f"{name}-new0", *left[:2]), one(f"{name}-new1", *left[2:])]
    bind_all(world, new)
    check_exact(world, [old[0], *new])
    assert sees(world, old[1].name)["main"] == foreign


@pytest.mark.parametrize("way", ["refused", "silent"])
def test_without_the_api_server_a_pod_is_served_in_time(world: World, way: str) -> None:
    """The pod cannot be looked up: within 2 s it has the best set, and the drift is counted."""
    old = one(f"before-{way}", 0, 3)
    world.bind(old)
    check_exact(world, [old])
    before = world.count("drift_total", reason="api_server")
    world.cut_plugin_off(silently=way == "silent")
    name = f"during-{way}"
    world.bind(one(name, 1, 2, 5, 6))
    got = sees(world, name)["main"]
    assert len(got) == 4
    assert not got & {0, 3}
    assert world.count("drift_total", reason="api_server") == before + 1
    rpc = {"rpc": "GetPreferredAllocation"}
    within = world.count("rpc_seconds_bucket", **rpc, le=str(ADMISSION_SECONDS))
    assert within == world.count("rpc_seconds_count", **rpc)
    world.reconnect_plugin()
    settled(world)


def test_a_pod_that_the_watch_has_not_shown_is_looked_up(world: World) -> None:
    """A watch that lags costs one GET and nobody a set."""
    world.delay_watches()
    pods = [one("unseen0", 6, 1), one("unseen1", 4, 3), one("unseen2", 0, 5)]
    bind_all(world, pods)
    for pod in pods:
        assert sees(world, pod.name)["main"] == set((pod.sets or {})["main"])
    world.reconnect_plugin()
    check_exact(world, pods)


def test_a_pod_that_takes_over_a_name_is_looked_up(world: World) -> None:
    """The watch still shows its namesake, which had another set and another size."""
    old, new = one("namesake", 0, 3), one("namesake", 1, 2, 5)
    world.bind(old)
    check_exact(world, [old])
    world.delay_watches()
    world.delete("namesake")
    wait_until(lambda: world.phase("namesake") == ("", ""), what="the end of the first one")
    wait_until(lambda: not world.held(), what="kubelet to free its GPUs")
    world.bind(new)
    assert sees(world, "namesake")["main"] == {1, 2, 5}
    world.reconnect_plugin()
    check_exact(world, [new])


def test_a_gpu_lost_after_the_choice_costs_only_itself(world: World) -> None:
    """A pod bound with a lost GPU gets the rest of its set; a strict one is refused."""
    before = world.count("drift_total", reason="unhealthy")
    world.lose_gpu(3)
    wait_until(lambda: world.allocatable() == 7, what="7 GPUs in node.status")
    world.bind(one("strict", 0, 3, strict=True))
    wait_until(lambda: world.phase("strict")[0] == "Failed", what="the refusal")
    assert "strict" in world.phase("strict")[1]
    world.bind(one("lenient", 0, 3))
    got = sees(world, "lenient")["main"]
    assert 0 in got
    assert 3 not in got
    assert len(got) == 2
    assert world.count("drift_total", reason="unhealthy") == before + 1
    untouched = one("untouched", *sorted({1, 2, 4, 5, 6, 7} - got)[:3])
    world.bind(untouched)
    check_exact(world, [untouched])


def test_a_gpu_that_fails_in_use_stays_with_its_pod(world: World) -> None:
    """The pod runs on, nobody else gets the GPU, and after its recovery it is whole again."""
    pod = one("sick", 4, 7)
    world.bind(pod)
    check_exact(world, [pod])
    world.report_xid(4, 48)
    wait_until(lambda: world.allocatable() == 7, what="7 GPUs in node.status")
    sick = world.uuids()[4]

    def said() -> bool:
        state = world.state()
        return state is not None and state.unhealthy.keys() == {sick}

    wait_until(said, what="its reason in the state")
    check_exact(world, [pod])
    rest = one("rest", 0, 1, 2, 3, 5, 6)
    world.bind(rest)
    check_exact(world, [pod, rest])
    world.heal_gpus()
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    check_exact(world, [pod, rest])


def test_a_set_that_does_not_read_fails_nobody(world: World) -> None:
    """A truncated annotation counts as none: the pod runs, and the drift is counted."""
    before = world.count("drift_total", reason="broken_annotation")
    whole = one("whole", 0, 3)
    world.bind(PodPlan("torn", {"main": 2}, raw='{"v":1,"containers":{"main":["GPU-'))
    world.bind(whole)
    check_exact(world, [] if sees(world, "torn")["main"] & {0, 3} else [whole])
    assert world.count("drift_total", reason="broken_annotation") == before + 1
