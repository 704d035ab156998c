"""Init containers with GPUs. Kubelet gives later containers what the earlier ones had.

It does so at random and without asking. So an exact set is kept for sidecars, which keep theirs,
and for an init container beside one other container with the same set. The scheduler refuses other
shapes; here they come all the same, and nothing worse may follow than a drift that is counted.
"""

from __future__ import annotations

from tests.contract.checks import check_exact, drift, one, sees, settled
from tests.contract.world import PodPlan, World
from tests.waiting import wait_until


def test_sidecars_have_and_keep_their_own_sets(world: World) -> None:
    """Two sidecars and a container, each with its set; one restarts with what it had."""
    pod = PodPlan(
        "aided",
        {"first": 1, "second": 2, "main": 3},
        {"first": (7,), "second": (0, 5), "main": (1, 3, 6)},
        sidecars=("first", "second"),
    )
    world.bind(pod)
    check_exact(world, [pod])
    world.crash("aided", "second")
    wait_until(lambda: world.starts("aided") == 4, what="the restart")
    wait_until(lambda: "second" in world.running()["aided"], what="the sidecar to run again")
    rest = one("rest", 2, 4)
    world.bind(rest)
    check_exact(world, [pod, rest])


def test_an_init_container_with_the_set_of_the_only_other_one(world: World) -> None:
    """Kubelet hands it on: the container sees the set, and no drift is counted."""
    before = drift(world)
    pod = PodPlan(
        "prepared", {"init": 2, "main": 2}, {"init": (2, 6), "main": (2, 6)}, inits=("init",)
    )
    world.bind(pod)
    check_exact(world, [pod])
    assert drift(world) == before
    assert world.starts("prepared") == 2


def test_an_init_container_without_gpus_changes_nothing(world: World) -> None:
    """The set is that of a pod without one."""
    before = drift(world)
    pod = PodPlan("plain", {"init": 0, "main": 3}, {"main": (0, 4, 7)}, inits=("init",))
    world.bind(pod)
    check_exact(world, [pod])
    assert drift(world) == before


def test_a_smaller_init_container_costs_a_drift_that_is_counted(world: World) -> None:
    """Kubelet insists that the container takes over its GPU; what then differs is counted."""
    before = drift(world)
    pod = PodPlan(
        "smaller", {"init": 1, "main": 2}, {"init": (2,), "main": (2, 6)}, inits=("init",)
    )
    world.bind(pod)
    got = sees(world, "smaller")["main"]
    assert len(got) == 2
    settled(world)
    if got != {2, 6}:
        assert drift(world) > before
    rest = one("rest", *sorted({*range(8)} - got)[:5])
    world.bind(rest)
    check_exact(world, [rest])


def test_surplus_gpus_of_an_init_container_are_in_nobody_elses_hands(world: World) -> None:
    """Two containers share at random what a larger one had; no GPU is in two of them."""
    before = drift(world)
    pod = PodPlan(
        "larger",
        {"init": 3, "a": 1, "b": 1},
        {"init": (0, 3, 5), "a": (0,), "b": (3,)},
        inits=("init",),
    )
    world.bind(pod)
    seen = sees(world, "larger")
    assert len(seen["a"] | seen["b"]) == 2
    settled(world)
    assert drift(world) > before


def test_a_sidecar_takes_over_the_gpus_of_an_init_container_before_it(world: World) -> None:
    """Five of eight are enough for both, and the sidecar has the set."""
    counts = {"init": 5, "side": 5, "main": 0}
    sets = {"init": (0, 2, 3, 5, 7), "side": (0, 2, 3, 5, 7)}
    pod = PodPlan("before", counts, sets, inits=("init",), sidecars=("side",))
    world.bind(pod)
    check_exact(world, [pod])


def test_an_init_container_after_a_sidecar_gets_other_gpus(world: World) -> None:
    """What a sidecar keeps is not handed on: for twice five of eight kubelet turns the pod away."""
    counts = {"side": 5, "init": 5, "main": 0}
    pod = PodPlan("after", counts, sidecars=("side",), late=("init",))
    world.bind(pod)
    wait_until(lambda: world.phase("after")[0] == "Failed", what="the pod to be turned away")
    assert "Requested: 5, Available: 3" in world.phase("after")[1]
    assert world.starts("after") == 0
