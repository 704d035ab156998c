"""The whole API server away: for kubelet, the plugin and everybody else."""

from __future__ import annotations

from tests.contract.checks import bind_all, check_exact, drift, one, sees, settled, unbound
from tests.contract.world import World
from tests.waiting import wait_until


def test_admissions_go_on_while_the_api_server_is_paused(world: World) -> None:
    """A static pod is admitted without it, spares what others hold, and runs when it is back.

    A real kubelet waits for its mirror pod before it starts containers, if it is not refused one.
    """
    old = one("old", 0, 3)
    world.bind(old)
    check_exact(world, [old])
    world.pause_api_server()
    name = world.add_static_pod(unbound("fixed", 4))
    wait_until(lambda: name in world.held(), what="the static pod's admission")
    got = world.held()[name]["main"]
    assert len(got) == 4
    assert not got & {0, 3}
    world.resume_api_server()
    assert sees(world, name)["main"] == got
    settled(world)
    new = one("new", *sorted({*range(8)} - {0, 3} - got))
    world.bind(new)
    check_exact(world, [old, new])


def test_pods_bound_just_before_it_is_paused(world: World) -> None:
    """Some are in admission, some not heard of: all run in the end, and a wrong set is counted."""
    before = drift(world)
    pods = [one(f"caught{gpu}", gpu) for gpu in (6, 1, 4, 3, 0, 5)]
    bind_all(world, pods)
    world.pause_api_server()
    # Needs no API server, and comes after all that kubelet has heard of.
    name = world.add_static_pod(unbound("fixed", 1))
    wait_until(lambda: name in world.held(), timeout=30, what="the static pod's admission")
    world.resume_api_server()
    seen = {pod.name: sees(world, pod.name)["main"] for pod in pods}
    sees(world, name)
    settled(world)
    missed = sum(seen[pod.name] != set((pod.sets or {})["main"]) for pod in pods)
    assert missed <= drift(world) - before


def test_a_container_restarts_while_it_is_paused(world: World) -> None:
    """Kubelet needs nobody for it; the container sees the GPUs of before."""
    pod = one("phoenix", 2, 6)
    world.bind(pod)
    check_exact(world, [pod])
    world.pause_api_server()
    world.crash("phoenix", "main")
    wait_until(lambda: world.starts("phoenix") == 2, what="the restart")
    wait_until(lambda: world.running().get("phoenix") == {"main": {2, 6}}, what="its GPUs")
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
