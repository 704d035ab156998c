"""Static pods: kubelet runs them because a file says so, and nobody has chosen GPUs for them."""

from __future__ import annotations

from tests.contract.checks import check_exact, drift, one, sees, settled, unbound
from tests.contract.world import World
from tests.waiting import wait_until


def test_a_static_pod_is_in_the_state_by_its_mirror(world: World) -> None:
    """The scheduler sees its GPUs as taken, under the UID that the API server has."""
    old = one("old", 0, 3)
    world.bind(old)
    check_exact(world, [old])
    name = world.add_static_pod(unbound("fixed", 2))
    got = sees(world, name)["main"]
    assert len(got) == 2
    settled(world)
    state = world.state()
    assert state is not None
    assert set(state.allocations) == {world.uid("old"), world.uid(name)}
    new = one("new", *sorted({*range(8)} - {0, 3} - got))
    world.bind(new)
    check_exact(world, [old, new])


def test_a_static_pod_leaves_promised_gpus_alone(world: World) -> None:
    """Static pods and ours come together: what ours were promised is spared, or it is counted."""
    before = drift(world)
    ours = [one("ours0", 0, 3), one("ours1", 1, 2), one("ours2", 7)]
    fixed = []
    for number, pod in enumerate(ours):
        world.bind(pod)
        fixed.append(world.add_static_pod(unbound(f"fixed{number}", 1)))
    for name in fixed:
        assert len(sees(world, name)["main"]) == 1
    seen = {pod.name: sees(world, pod.name)["main"] for pod in ours}
    settled(world)
    missed = sum(seen[pod.name] != set((pod.sets or {})["main"]) for pod in ours)
    assert missed == drift(world) - before


def test_gpus_of_a_static_pod_come_back(world: World) -> None:
    """When its file goes its GPUs are free, and in the state only when its container has ended.

    Kubelet gives them away at once: for it the pod is gone while its container still ends.
    """
    plan = unbound("greedy", 8)
    name = world.add_static_pod(plan)
    assert sees(world, name)["main"] == {*range(8)}
    settled(world)
    uid = world.uid(name)
    world.remove_static_pod(plan)

    def freed() -> bool:
        # The state is read first: it may only say so after the end.
        state = world.state()
        assert state is not None
        assert uid in state.allocations or name not in world.running()
        return uid not in state.allocations

    wait_until(freed, what="the GPUs to come back")
    pods = [one("left", 0, 1, 2, 3), one("right", 4, 5, 6, 7)]
    for pod in pods:
        world.bind(pod)
    check_exact(world, pods)


def test_a_static_pod_outlives_kubelet(world: World) -> None:
    """The new kubelet finds it running: it keeps its GPUs and its place in the state."""
    name = world.add_static_pod(unbound("lasting", 3))
    got = sees(world, name)["main"]
    settled(world)
    uid = world.uid(name)
    before = world.registrations()
    world.restart_kubelet()
    wait_until(lambda: world.registrations() > before, what="a registration")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    pod = one("new", *sorted({*range(8)} - got)[:4])
    world.bind(pod)
    check_exact(world, [pod])
    assert sees(world, name)["main"] == got
    assert world.uid(name) == uid
    assert world.starts(name) == 1
