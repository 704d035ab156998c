"""Kubelet's topology manager between the scheduler's choice and the plugin.

With a policy other than none, kubelet offers the plugin only GPUs of the NUMA nodes that it has
picked (the fewest that suffice, the lowest of those), and none to choose from when they are just
enough. So the policy decides which sets can be had. GPUs 0 to 3 are on node 0. Policy none is
what all other cases run with.
"""

from __future__ import annotations

from typing import Final, Literal

import pytest

from tests.contract.checks import check_exact, one, sees, settled
from tests.contract.world import PodPlan, Setup, TopologyPolicy, World
from tests.waiting import wait_until

Fate = Literal["exact", "drift", "unasked", "refused"]
"""What becomes of a pod bound with a set.

`drift`: it runs with another set, counted when the plugin was asked. `unasked`: it runs with
another set, and the plugin finds out when it reads back. `refused`: kubelet fails it.
"""

POLICIES: Final[tuple[TopologyPolicy, ...]] = ("best-effort", "restricted", "single-numa-node")

# Set -> policy -> fate, on an empty node.
FATES: Final[dict[tuple[int, ...], dict[TopologyPolicy, Fate]]] = {
    (0, 3): {"best-effort": "exact", "restricted": "exact", "single-numa-node": "exact"},
    (5, 6): {"best-effort": "drift", "restricted": "drift", "single-numa-node": "drift"},
    (3, 4): {"best-effort": "drift", "restricted": "drift", "single-numa-node": "drift"},
    (4, 5, 6, 7): {
        "best-effort": "unasked",
        "restricted": "unasked",
        "single-numa-node": "unasked",
    },
    (1, 2, 3, 4, 5, 6): {
        "best-effort": "exact",
        "restricted": "exact",
        "single-numa-node": "refused",
    },
}


@pytest.fixture(scope="module", params=POLICIES)
def setup(request: pytest.FixtureRequest) -> Setup:
    """Return a node with one policy after the other, whose plugin tells where its GPUs are."""
    return Setup(request.param)


@pytest.mark.parametrize("gpus", FATES, ids=lambda gpus: "+".join(map(str, gpus)))
def test_which_sets_can_be_had(world: World, setup: Setup, gpus: tuple[int, ...]) -> None:
    """Those that kubelet's choice of nodes allows; every other one is counted or refused."""
    fate = FATES[gpus][setup.topology_policy]
    before = world.count("drift_total", reason="not_offered")
    mismatched = world.count("realised_total", outcome="mismatched")
    pod = one("numa", *gpus)
    world.bind(pod)
    if fate == "refused":
        wait_until(lambda: world.phase("numa")[0] == "Failed", what="kubelet to refuse it")
        assert "Topology locality" in world.phase("numa")[1]
        settled(world)
        return
    got = sees(world, "numa")["main"]
    settled(world)
    assert (got == set(gpus)) == (fate == "exact")
    counted = world.count("drift_total", reason="not_offered") - before
    assert counted == (fate == "drift")
    assert len(got) == len(gpus)
    expected = mismatched + (fate in ("drift", "unasked"))
    wait_until(
        lambda: world.count("realised_total", outcome="mismatched") == expected,
        what="the plugin to have judged what it read back",
    )


def test_the_last_gpu_of_each_node(world: World, setup: Setup) -> None:
    """What is left lies on two nodes: two policies refuse that."""
    full = [one("left", 0, 1, 2), one("right", 4, 5, 6)]
    world.bind(full[0])
    check_exact(world, full[:1])
    # Only node 1 has three GPUs left by now, so kubelet picks it by itself.
    world.bind(full[1])
    check_exact(world, full)
    last = one("last", 3, 7)
    world.bind(last)
    if setup.topology_policy != "best-effort":
        wait_until(lambda: world.phase("last")[0] == "Failed", what="kubelet to refuse it")
        assert "Topology locality" in world.phase("last")[1]
        check_exact(world, full)
    else:
        check_exact(world, [*full, last])


def test_a_strict_pod_is_refused_rather_than_moved(world: World) -> None:
    """Its set is not offered, so it fails, and leaves nothing behind."""
    world.bind(PodPlan("strict", {"main": 2}, {"main": (5, 6)}, strict=True))
    wait_until(lambda: world.phase("strict")[0] == "Failed", what="the refusal")
    assert "strict" in world.phase("strict")[1]
    settled(world)
    after = one("after", 1, 2)
    world.bind(after)
    check_exact(world, [after])
