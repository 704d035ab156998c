"""The whole API server away: for kubelet, the plugin and everybody else."""

from __future__ import annotations

import pytest

from tests.contract.checks import bind_all, check_exact, drift, one, sees, settled, unbound
from tests.contract.world import World
from tests.waiting import wait_until

ways = pytest.mark.parametrize("way", ["silent", "refused"])


@ways
def test_admissions_go_on_while_the_api_server_is_away(world: World, way: str) -> None:
    """A static pod is admitted without it, spares what others hold, and runs when it is back.

    A real kubelet waits for its mirror pod before it starts containers, if it is not refused one;
    then it tries again when it looks at the pod the next time.
    """
    old, fixed = one(f"old-{way}", 0, 3), unbound(f"fixed-{way}", 4)
    world.bind(old)
    check_exact(world, [old])
    world.pause_api_server(silently=way == "silent")
    name = world.add_static_pod(fixed)
    wait_until(lambda: name in world.held(), what="the static pod's admission")
    got = world.held()[name]["main"]
    assert len(got) == 4
    assert not got & {0, 3}
    if way == "refused":
        wait_until(lambda: world.running().get(name) == {"main": got}, what="its container")
    world.resume_api_server()
    assert sees(world, name, timeout=60)["main"] == got
    settled(world)
    new = one(f"new-{way}", *sorted({*range(8)} - {0, 3} - got))
    world.bind(new)
    check_exact(world, [old, new])


@ways
def test_pods_bound_just_before_it_goes_away(world: World, way: str) -> None:
    """Some are in admission, some not heard of: all run in the end, and a wrong set is counted."""
    before = drift(world)
    pods = [one(f"caught{gpu}-{way}", gpu) for gpu in (6, 1, 4, 3, 0, 5)]
    bind_all(world, pods)
    world.pause_api_server(silently=way == "silent")
    # Needs no API server, and comes after all that kubelet has heard of.
    name = world.add_static_pod(unbound(f"caught-{way}", 1))
    wait_until(lambda: name in world.held(), timeout=30, what="the static pod's admission")
    world.resume_api_server()
    seen = {pod.name: sees(world, pod.name)["main"] for pod in pods}
    sees(world, name, timeout=60)
    settled(world)
    missed = sum(seen[pod.name] != set((pod.sets or {})["main"]) for pod in pods)
    assert missed <= drift(world) - before


@ways
def test_a_container_restarts_without_it(world: World, way: str) -> None:
    """Kubelet needs nobody for it; the container sees the GPUs of before."""
    pod = one(f"phoenix-{way}", 2, 6)
    world.bind(pod)
    check_exact(world, [pod])
    world.pause_api_server(silently=way == "silent")
    world.crash(pod.name, "main")
    wait_until(lambda: world.starts(pod.name) == 2, what="the restart")
    wait_until(lambda: world.running().get(pod.name) == {"main": {2, 6}}, what="its GPUs")
    world.resume_api_server()
    check_exact(world, [pod])


def test_versions_too_old_to_watch_from_lose_nothing(world: World) -> None:
    """410 Gone: what the plugin and kubelet missed is listed, and later pods are known by UID."""
    old = [one("stays", 0, 3), one("goes", 1, 2)]
    bind_all(world, old)
    check_exact(world, old)
    world.cut_plugin_off(silently=False)
    world.delete("goes")
    wait_until(lambda: "goes" not in world.held(), what="kubelet to free the GPUs")
    wait_until(lambda: world.phase("goes") == ("", ""), what="the end of the pod")
    world.expire_versions()
    world.reconnect_plugin()
    new = [one("new0", 1, 4), one("new1", 2, 5)]
    bind_all(world, new)
    check_exact(world, [old[0], *new])
