"""MIG instances: kubelet counts each profile, and follows when GPUs are cut anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.checks import sees
from tests.contract.world import GPUS, RESOURCE, PodPlan, Setup, World
from tests.waiting import wait_until

SMALL = "nvidia.com/mig-1g.5gb"
LARGE = "nvidia.com/mig-3g.20gb"


@pytest.fixture(scope="module")
def setup() -> Setup:
    """Return a node of eight A100."""
    return Setup(machine="dgx-a100-8x")


@pytest.fixture(autouse=True)
def uncut(world: World) -> Iterator[None]:
    """Begin with the mixed strategy; take pods and instances away at the end."""
    world.configure("flags: {migStrategy: mixed}")
    yield
    for name in world.running():
        world.delete(name)
    wait_until(lambda: not world.running(), 20, what="all pods to be gone")
    for gpu in range(2):
        world.partition(gpu, None)
    offered(world, RESOURCE, GPUS)


def offered(world: World, resource: str, count: int) -> None:
    """Wait until node.status offers so many devices."""
    wait_until(lambda: world.allocatable(resource) == count, 30, what=f"{count} of {resource}")


def test_a_gpu_is_cut_and_cut_anew(world: World) -> None:
    """Whole GPUs, small and large instances come and go; what is gone is zero, pods run on."""
    world.partition(0, ("1g.5gb",) * 7)
    offered(world, SMALL, 7)
    offered(world, RESOURCE, GPUS - 1)
    world.bind(PodPlan("whole", {"main": 2}, {"main": (4, 5)}))
    assert sees(world, "whole") == {"main": frozenset({4, 5})}
    world.bind(PodPlan("small", {"main": 3}, resource=SMALL))
    sees(world, "small")
    world.delete("small")
    wait_until(lambda: "small" not in world.running(), 20, what="the pod's end")
    world.partition(0, ("3g.20gb", "3g.20gb"))
    offered(world, SMALL, 0)
    offered(world, LARGE, 2)
    world.bind(PodPlan("large", {"main": 1}, resource=LARGE))
    sees(world, "large")
    assert sees(world, "whole") == {"main": frozenset({4, 5})}
    assert world.starts("whole") == 1


def test_the_state_names_the_gpu_of_an_instance(world: World) -> None:
    """The scheduler is told that the GPU is not to be had whole, and who has a part of it."""
    world.partition(1, ("1g.5gb", "1g.5gb"))
    offered(world, SMALL, 2)
    uid = world.bind(PodPlan("part", {"main": 1}, resource=SMALL))
    sees(world, "part")
    gpu = world.uuids()[1]

    def told() -> bool:
        state = world.state()
        return state is not None and (state.allocations.get(uid), state.withheld) == (
            (gpu,),
            {gpu: f"offered as {SMALL}"},
        )

    wait_until(told, what="the state")
