"""Other offers than whole GPUs: kubelet counts them, and each pod gets what the rules say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.checks import check_exact, one, sees
from tests.contract.world import GPUS, RESOURCE, PodPlan, World
from tests.waiting import wait_until

SHARED = f"{RESOURCE}.shared"


@pytest.fixture(autouse=True)
def whole_again(world: World) -> Iterator[None]:
    """Take the pods away before the configuration: the books are checked against whole GPUs."""
    yield
    for name in world.running():
        world.delete(name)
    wait_until(lambda: not world.held(), what="kubelet to free all devices")


def sliced(replicas: int, more: str = "") -> str:
    """Return a configuration of shared GPUs."""
    return (
        f"sharing: {{timeSlicing: {{{more} "
        f"resources: [{{name: {RESOURCE}, replicas: {replicas}}}]}}}}"
    )


def offered(world: World, **counts: int) -> None:
    """Wait until node.status offers these numbers: `gpu`, and `shared` under its own name."""
    names = {"gpu": RESOURCE, "shared": SHARED}
    for name, count in counts.items():
        wait_until(
            lambda name=name, count=count: world.allocatable(names[name]) == count,
            timeout=30,
            what=f"{count} of {names[name]}",
        )


def share(name: str, count: int, *gpus: int, resource: str = RESOURCE) -> PodPlan:
    """Return a pod that asks for shares, with a set or without."""
    return PodPlan(name, {"main": count}, {"main": gpus} if gpus else None, resource=resource)


def test_shares_of_the_bound_gpus_are_given(world: World) -> None:
    """Two pods bound to one GPU share it; a third one without a set gets the GPUs left idle."""
    world.configure(sliced(3))
    offered(world, gpu=3 * GPUS)
    for name in ("first", "second"):
        world.bind(share(name, 2, 5, 6))
        assert sees(world, name) == {"main": frozenset({5, 6})}
    world.bind(share("third", 6))
    assert sees(world, "third") == {"main": frozenset(range(GPUS)) - {5, 6}}
    assert world.count("preferred_allocations_total", outcome="exact") >= 2


def test_more_shares_than_are_allowed_fail_the_pod(world: World) -> None:
    """Kubelet refuses the pod with the plugin's own words; one share is given."""
    world.configure(sliced(2, "failRequestsGreaterThanOne: true,"))
    offered(world, gpu=2 * GPUS)
    world.bind(share("greedy", 2))
    wait_until(lambda: world.phase("greedy")[0] == "Failed", what="the refusal")
    assert "2 replicas of nvidia.com/gpu asked; one is allowed" in world.phase("greedy")[1]
    world.delete("greedy")
    world.bind(share("modest", 1))
    assert len(sees(world, "modest")["main"]) == 1


def test_a_resource_that_vanishes_goes_to_zero_and_comes_back(world: World) -> None:
    """Renamed, the old resource has nothing left and pods that hold it run on; and back again."""
    pod = one("whole", 2, 3)
    world.bind(pod)
    check_exact(world, [pod])
    world.configure(sliced(2, "renameByDefault: true,"))
    offered(world, gpu=0, shared=2 * GPUS)
    assert sees(world, "whole") == {"main": frozenset({2, 3})}
    world.bind(share("shares", 12, resource=SHARED))
    assert sees(world, "shares") == {"main": frozenset(range(GPUS)) - {2, 3}}
    world.delete("shares")
    world.configure("")
    offered(world, gpu=GPUS, shared=0)
    assert sees(world, "whole") == {"main": frozenset({2, 3})}
    assert world.starts("whole") == 1


def test_excluded_gpus_are_not_given(world: World) -> None:
    """A GPU that is excluded while a pod has it stays with that pod, and goes to no other."""
    pod = one("holder", 0)
    world.bind(pod)
    check_exact(world, [pod])
    world.configure("gpus: {exclude: [0, 1]}")
    offered(world, gpu=GPUS - 2)
    world.bind(PodPlan("others", {"main": GPUS - 2}))
    assert sees(world, "others") == {"main": frozenset(range(2, GPUS))}
    assert sees(world, "holder") == {"main": frozenset({0})}


def test_a_restarted_kubelet_is_told_of_every_resource(world: World) -> None:
    """Both resources are registered again, the one that has nothing left included."""
    world.configure(sliced(2, "renameByDefault: true,"))
    offered(world, gpu=0, shared=2 * GPUS)
    before = world.registrations()
    world.restart_kubelet()
    wait_until(lambda: world.registrations() >= before + 2, 30, what="both registrations")
    offered(world, gpu=0, shared=2 * GPUS)
    world.bind(share("after", 1, 4, resource=SHARED))
    assert sees(world, "after") == {"main": frozenset({4})}
