"""What the API tells of nodes and of the cluster."""

from __future__ import annotations

import pytest

from tests.scheduler.explain.conftest import Asker
from tests.scheduler.nodes import mesh, pcie, switched
from topology.wire import NodeState


async def test_a_node_says_who_holds_which_gpu_and_how(ask: Asker) -> None:
    """Really, by a promise, or planned: by name where it is known."""
    state = NodeState(1, unhealthy={"GPU-5": "XID 79"}, allocations={"uid-r": ("GPU-0",)})
    await ask.town.node("a", mesh(6), state)
    await ask.town.pod("promised", 1, node="a", assigned={"main": ("GPU-1",)})
    await ask.town.until(lambda: ask.town.free("a") == 3)
    await ask.town.filter(await ask.town.pod("planned", 2), "a")
    node = await ask.get("/v1/nodes/a")
    held = {
        gpu["uuid"]: [(one["pod"], one["how"]) for one in gpu["holders"]] for gpu in node["gpus"]
    }
    assert held["GPU-0"] == [("", "real")]
    assert held["GPU-1"] == [("default/promised", "promised")]
    assert list(held.values()).count([("default/planned", "held")]) == 2
    broken = node["gpus"][5]
    assert (broken["healthy"], broken["problem"], broken["freeShare"]) == (False, "XID 79", 0)
    assert node["summary"]["free"] == 1


async def test_a_node_lists_the_best_set_of_each_size(ask: Asker) -> None:
    """Of the GPUs that are free now, with its worst link."""
    await ask.town.node("a", mesh(4), NodeState(1, allocations={"x": ("GPU-3",)}))
    node = await ask.get("/v1/nodes/a")
    assert [(one["size"], len(one["gpus"])) for one in node["sets"]] == [(1, 1), (2, 2), (3, 3)]
    assert node["sets"][0]["worstLink"] is None
    assert node["sets"][2]["busBandwidthGbs"] > 0
    assert len(node["links"]) == 6


async def test_a_node_without_topology_is_told_as_it_is(ask: Asker) -> None:
    """Its GPUs are not known, so none is listed."""
    await ask.town.node("plain", None)
    node = await ask.get("/v1/nodes/plain")
    assert (node["summary"]["known"], node["gpus"], node["sets"]) == (False, [], [])
    assert node["summary"]["wasted"] is None


async def test_nodes_are_listed_by_name(ask: Asker) -> None:
    """With what is free, and what the free ones are worth less than on an empty node."""
    await ask.town.node("b", mesh(4))
    await ask.town.node("a", switched(4))
    lines = await ask.get("/v1/nodes")
    assert [(line["node"], line["gpus"], line["free"]) for line in lines] == [
        ("a", 4, 4),
        ("b", 4, 4),
    ]
    assert [line["linkLoss"] for line in lines] == [0, 0]


async def test_the_cluster_says_what_is_left(ask: Asker) -> None:
    """Counts, shares in percent, and the largest set by level."""
    await ask.town.node("a", switched(4))
    await ask.town.node("b", pcie(4), NodeState(1, allocations={"x": ("GPU-0", "GPU-1")}))
    told = await ask.get("/v1/cluster")
    assert (told["nodes"], told["gpus"], told["healthy"], told["free"]) == (2, 8, 8, 6)
    assert told["unallocatedPct"] == 75
    assert told["largest"]["NV"] == 4
    assert told["largest"]["SYS"] == 4
    two = told["sizes"][1]
    assert (two["size"], two["node"]) == (2, "a")
    assert two["nodes"]["NV"] == 1
    assert two["nodes"]["SYS"] == 2


async def test_a_cluster_without_nodes_is_told_too(ask: Asker) -> None:
    """Nothing is divided by nothing."""
    told = await ask.get("/v1/cluster")
    assert (told["nodes"], told["unallocatedPct"], told["sizes"]) == (0, 0, [])
    assert await ask.get("/v1/nodes") == []


@pytest.mark.parametrize("taken", [1, 3])
async def test_link_loss_grows_with_what_is_torn_apart(ask: Asker, taken: int) -> None:
    """A mesh of four with one GPU gone has rings left; one whose pairs are cut has not."""
    gone = tuple(f"GPU-{number}" for number in range(taken))
    await ask.town.node("a", mesh(4), NodeState(1, allocations={"x": gone}))
    line = (await ask.get("/v1/nodes"))[0]
    assert 0 <= line["linkLoss"] <= 1
    assert line["free"] == 4 - taken
