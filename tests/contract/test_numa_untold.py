"""A plugin with `numa_hints: false`: kubelet's topology manager has nothing to go by."""

from __future__ import annotations

import pytest

from tests.contract.checks import bind_all, check_exact, drift, one
from tests.contract.world import Setup, World
from tests.waiting import wait_until


@pytest.fixture(scope="module", params=["best-effort", "restricted", "single-numa-node"])
def setup(request: pytest.FixtureRequest) -> Setup:
    """Return a node with one policy after the other, whose plugin tells nothing of NUMA nodes."""
    return Setup(request.param, numa_hints=False)


def test_every_set_can_be_had(world: World) -> None:
    """Within the second node, across both, six of eight, and the last of each: no drift."""
    before = drift(world)
    pods = [one("second", 5, 6), one("across", 3, 4), one("left", 0, 7), one("rest", 1, 2)]
    bind_all(world, pods)
    check_exact(world, pods)
    for pod in pods[1:]:
        world.delete(pod.name)
    wide = one("wide", 0, 1, 2, 3, 4, 7)
    wait_until(lambda: world.held().keys() == {"second"}, what="the GPUs to come back")
    world.bind(wide)
    check_exact(world, [pods[0], wide])
    assert drift(world) == before
