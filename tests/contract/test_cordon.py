"""GPUs that an operator takes out of service: who is shown sick, who gets them."""

from __future__ import annotations

from tests.contract.checks import check_exact, one, sees, unbound
from tests.contract.world import World
from tests.waiting import wait_until


def test_a_cordoned_gpu_is_closed_when_it_is_free_and_its_pod_is_not_sick(world: World) -> None:
    """The pod on one of two cordoned GPUs is shown well and runs; nobody gets either after it."""
    pod = one("cordon-stays", 3, 0)
    world.bind(pod)
    check_exact(world, [pod])
    world.cordon("3,5")
    wait_until(lambda: world.allocatable() == 7, timeout=30, what="the free one is closed")
    assert world.device_health("cordon-stays") == {0: "Healthy", 3: "Healthy"}
    world.delete("cordon-stays")
    wait_until(lambda: world.allocatable() == 6, timeout=30, what="the other is closed too")
    world.bind(unbound("cordon-next", 6))
    (gpus,) = sees(world, "cordon-next").values()
    assert gpus == {0, 1, 2, 4, 6, 7}
    world.cordon(None)
    wait_until(lambda: world.allocatable() == 8, timeout=30, what="both are open again")
