"""Kubelet's topology manager between the scheduler's choice and the plugin.

With a policy other than none, kubelet offers the plugin only GPUs of the NUMA nodes that it has
picked (the fewest that suffice, the lowest of those), and none to choose from when they are just
enough. So the node's setup decides which sets can be had. GPUs 0 to 3 are on node 0.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import pytest

from tests.contract.checks import bind_all, check_exact, drift, one, sees, settled
from tests.contract.world import PodPlan, Setup, TopologyPolicy, World
from tests.waiting import wait_until

Fate = Literal["exact", "drift", "unasked", "refused"]
"""What becomes of a pod bound with a set.

`drift`: it runs with another set, counted when the plugin was asked. `unasked`: it runs with
another set, and the plugin finds out when it reads back. `refused`: kubelet fails it.
"""

POLICIES: Final[tuple[TopologyPolicy, ...]] = get_args(TopologyPolicy)
SETUPS: Final = [
    *(Setup(policy) for policy in POLICIES),
    *(Setup(policy, numa_hints=False) for policy in POLICIES if policy != "none"),
]

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


@pytest.fixture(
    scope="module",
    params=SETUPS,
    ids=lambda setup: f"{setup.topology_policy}{'' if setup.numa_hints else ' without hints'}",
)
def setup(request: pytest.FixtureRequest) -> Setup:
    """Return one setup after the other."""
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("gpus", FATES, ids=lambda gpus: "+".join(map(str, gpus)))
def test_which_sets_can_be_had(world: World, setup: Setup, gpus: tuple[int, ...]) -> None:
    """Without hints or a policy every set; else those that kubelet's choice of nodes allows."""
    fate = FATES[gpus].get(setup.topology_policy, "exact") if setup.numa_hints else "exact"
    before, mismatched = drift(world), world.count("realised_total", outcome="mismatched")
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
    assert drift(world) - before == (fate == "drift")
    assert len(got) == len(gpus)
    expected = mismatched + (fate in ("drift", "unasked"))
    wait_until(
        lambda: world.count("realised_total", outcome="mismatched") == expected,
        what="the plugin to have judged what it read back",
    )


def test_the_last_gpu_of_each_node(world: World, setup: Setup) -> None:
    """What is left lies on two nodes: two policies refuse that as long as they know."""
    knows = setup.numa_hints and setup.topology_policy in ("restricted", "single-numa-node")
    full = [one("left", 0, 1, 2), one("right", 4, 5, 6)]
    world.bind(full[0])
    check_exact(world, full[:1])
    # Only node 1 has three GPUs left by now, so kubelet picks it by itself.
    world.bind(full[1])
    check_exact(world, full)
    last = one("last", 3, 7)
    world.bind(last)
    if knows:
        wait_until(lambda: world.phase("last")[0] == "Failed", what="kubelet to refuse it")
        assert "Topology locality" in world.phase("last")[1]
        check_exact(world, full)
    else:
        check_exact(world, [*full, last])


def test_a_strict_pod_is_refused_rather_than_moved(world: World, setup: Setup) -> None:
    """Where its set is not offered it fails, and leaves nothing behind."""
    offered = setup.topology_policy == "none" or not setup.numa_hints
    strict = PodPlan("strict", {"main": 2}, {"main": (5, 6)}, strict=True)
    world.bind(strict)
    if offered:
        check_exact(world, [strict])
        return
    wait_until(lambda: world.phase("strict")[0] == "Failed", what="the refusal")
    assert "strict" in world.phase("strict")[1]
    settled(world)
    after = [one("after0", 0, 1), one("after1", 2, 3)]
    bind_all(world, after[:1])
    check_exact(world, after[:1])
