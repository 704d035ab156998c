"""Whoever is restarted, and whatever happens meanwhile: no GPU twice, no wrong set unnoticed."""

from __future__ import annotations

from tests.contract.checks import bind_all, check_exact, drift, one, sees, settled, unbound
from tests.contract.world import World
from tests.waiting import wait_until


def test_a_second_plugin_takes_over_from_the_first(world: World) -> None:
    """Started before the first one ends, as in a rolling update: it serves all 8 GPUs afterwards.

    A kubelet up to 1.36 disconnects the second when the first ends, so it has to come again.
    """
    old = [one("old0", 0, 3), one("old1", 5)]
    bind_all(world, old)
    check_exact(world, old)
    before = world.state()
    world.replace_plugin()
    wait_until(lambda: world.registrations() >= 2, what="the second plugin to come again")
    wait_until(world.ready, what="readiness")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    new = [one("new0", 1, 2), one("new1", 4, 6, 7)]
    bind_all(world, new)
    check_exact(world, [*old, *new])
    after = world.state()
    assert before is not None
    assert after is not None
    assert after.generation > before.generation


def test_pods_bound_while_kubelet_is_down(world: World) -> None:
    """They come up before the plugin does: each is refused, has its set, or is counted as drift."""
    old = one("old", 0, 3)
    world.bind(old)
    check_exact(world, [old])
    before, registered = drift(world), world.registrations()
    world.stop_kubelet()
    early = [one("early0", 1, 2), one("early1", 4), one("early2", 5, 6)]
    bind_all(world, early)
    world.bind(unbound("foreign", 1))
    names = [*(pod.name for pod in early), "foreign"]
    world.start_kubelet()
    wait_until(
        lambda: all(world.phase(name)[0] in ("Running", "Failed") for name in names),
        timeout=20,
        what="kubelet to have decided",
    )
    # Once it took more than 10 s, and why is not known yet; the case is about sets.
    wait_until(lambda: world.registrations() > registered, timeout=30, what="a registration")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    refused = [name for name in names if world.phase(name)[0] == "Failed"]
    for name in refused:
        assert "no healthy devices present" in world.phase(name)[1]
    running = [pod for pod in early if pod.name not in refused]
    wrong = [p for p in running if sees(world, p.name)["main"] != set((p.sets or {})["main"])]
    assert len(wrong) <= drift(world) - before
    taken = {gpu for gpus in settled(world).values() for each in gpus.values() for gpu in each}
    late = one("late", *sorted({*range(8)} - taken))
    world.bind(late)
    check_exact(world, [old, late])


def test_a_pod_deleted_while_kubelet_is_down_ends_when_it_is_back(world: World) -> None:
    """Its container ran on; then its GPUs are given to whom they were promised."""
    old = [one("stays", 0, 3), one("goes", 1, 2)]
    bind_all(world, old)
    check_exact(world, old)
    registered = world.registrations()
    world.stop_kubelet()
    world.delete("goes")
    assert "goes" in world.running()
    world.start_kubelet()
    wait_until(lambda: "goes" not in world.running(), timeout=20, what="the end of the container")
    wait_until(lambda: world.registrations() > registered, what="a registration")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    wait_until(lambda: world.phase("goes") == ("", ""), what="the end of the pod")
    new = one("new", 1, 2)
    world.bind(new)
    check_exact(world, [old[0], new])
