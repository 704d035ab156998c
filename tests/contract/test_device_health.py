"""A GPU that fails in use: the pod's status says so, and that it is well again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.checks import check_exact, one
from tests.contract.world import World
from tests.waiting import wait_until

FAULTS: dict[str, Callable[[World, int], None]] = {
    "xid": lambda world, gpu: world.report_xid(gpu, 48),
    "lost": lambda world, gpu: world.lose_gpu(gpu),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pods_status_shows_the_health_of_its_gpus(world: World, fault: str) -> None:
    """Only the failed one is Unhealthy; the pod runs on, and it is Healthy again after recovery."""
    sick = f"sick-{fault}"
    pod, other = one(sick, 4, 7), one(f"well-{fault}", 0, 3)
    for each in (pod, other):
        world.bind(each)
    check_exact(world, [pod, other])
    well = {4: "Healthy", 7: "Healthy"}
    wait_until(lambda: world.device_health(sick) == well, what="its GPUs' health")
    FAULTS[fault](world, 4)
    wait_until(
        lambda: world.device_health(sick) == {**well, 4: "Unhealthy"}, what="GPU 4 Unhealthy"
    )
    assert world.device_health(other.name) == {0: "Healthy", 3: "Healthy"}
    check_exact(world, [pod, other])
    world.heal_gpus()
    wait_until(lambda: world.device_health(sick) == well, what="GPU 4 Healthy again")
    wait_until(lambda: world.allocatable() == 8, what="8 GPUs in node.status")
    assert world.starts(sick) == 1
    check_exact(world, [pod, other])
