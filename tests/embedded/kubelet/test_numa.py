"""Alignment by the topology manager: what it leaves the plugin to choose from."""

from __future__ import annotations

import pytest

from embedded.kubelet.devices import Device
from embedded.kubelet.numa import Hint, Policy, make_hints, merge_hints, split_devices
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import pod
from tests.embedded.kubelet.plugin import on_nodes

TWO_NODES = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0, "f": 1, "g": 0, "h": 1}
NODE_0, NODE_1 = ["a", "c", "e", "g"], ["b", "d", "f", "h"]


def test_none_does_not_filter(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """With policy none everything free is offered, though the devices tell their nodes."""
    node = make_node()
    plugin = make_plugin(node, on_nodes(**TWO_NODES), prefer=lambda free, _, n: sorted(free)[:n])
    node.run(pod("one", 2))
    assert plugin.asked == [(sorted(TWO_NODES), [], 2)]


def test_best_effort_offers_the_aligned_only(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """With best-effort a request of two is offered the devices of node 0 alone."""
    node = make_node(topology_policy="best-effort")
    plugin = make_plugin(node, on_nodes(**TWO_NODES), prefer=lambda *_: ["b", "d"])
    one = pod("one", 2)
    node.run(one)
    assert plugin.asked == [(NODE_0, [], 2)]
    assert set(node.devices(one)) < set(NODE_0)  # the set on node 1 cannot be had


def test_not_asked_when_the_aligned_fit_exactly(
    make_node: MakeNode, make_plugin: MakePlugin
) -> None:
    """With best-effort a request as large as the aligned set is not the plugin's to decide."""
    node = make_node(topology_policy="best-effort")
    plugin = make_plugin(node, on_nodes(**TWO_NODES), prefer=lambda free, _, n: sorted(free)[:n])
    one = pod("one", 4)
    node.run(one)
    assert plugin.asked == []
    assert node.devices(one) == NODE_0


def test_across_nodes_all_is_aligned(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """A request larger than a node is offered everything."""
    node = make_node(topology_policy="best-effort")
    plugin = make_plugin(node, on_nodes(**TWO_NODES), prefer=lambda free, _, n: sorted(free)[:n])
    node.run(pod("one", 6))
    assert plugin.asked == [(sorted(TWO_NODES), [], 6)]


@pytest.mark.parametrize("policy", ["best-effort", "restricted", "single-numa-node"])
def test_a_request_that_cannot_be_aligned(
    make_node: MakeNode, make_plugin: MakePlugin, policy: Policy
) -> None:
    """With one free device on each node, only best-effort admits a request of two."""
    node = make_node(topology_policy=policy)
    make_plugin(node, on_nodes(a=0, b=1, c=0, d=1), prefer=lambda free, _, n: sorted(free)[:n])
    pods = [pod("first"), pod("second"), pod("third")]
    node.run(*pods)
    assert [node.devices(each) for each in pods] == [["a"], ["c"], ["b"]]
    node.remove(pods[0])
    both = pod("both", 2)
    node.bind(both)
    if policy == "best-effort":
        node.wait_phase(both, "Running")
        assert node.devices(both) == ["a", "d"]
    else:
        assert node.wait_phase(both, "Failed")["reason"] == "TopologyAffinityError"


def devices(**nodes: int) -> dict[str, Device]:
    """Make devices on nodes."""
    return {name: Device(name, numa=(node,)) for name, node in nodes.items()}


def test_hints_prefer_what_an_idle_machine_would_do() -> None:
    """A hint is preferred when no smaller set of nodes could ever serve the request."""
    hints = make_hints(devices(**TWO_NODES), frozenset("abdf"), frozenset(), 2, frozenset({0, 1}))
    assert hints == (
        Hint(frozenset({1}), preferred=True),
        Hint(frozenset({0, 1}), preferred=False),
    )


def test_devices_without_nodes_have_no_preference() -> None:
    """Devices that tell no node make no hint, and are all alike."""
    plain = {name: Device(name) for name in "ab"}
    assert make_hints(plain, frozenset("ab"), frozenset(), 1, frozenset({0, 1})) is None
    split = split_devices(plain, frozenset("ab"), frozenset({0}))
    assert (split.aligned, split.without) == (frozenset(), frozenset("ab"))


def test_a_split_has_three_parts() -> None:
    """Devices of the chosen nodes, of others, and of none."""
    mixed = {**devices(a=0, b=1), "c": Device("c")}
    split = split_devices(mixed, frozenset("abc"), frozenset({1}))
    assert (split.aligned, split.unaligned, split.without) == (
        frozenset("b"),
        frozenset("a"),
        frozenset("c"),
    )


@pytest.mark.parametrize(
    ("policy", "nodes", "preferred"),
    [("best-effort", {0, 1}, False), ("single-numa-node", {0, 1}, False)],
)
def test_the_best_of_what_cannot_be_preferred(
    policy: Policy, nodes: set[int], preferred: bool
) -> None:
    """Without a preferred hint the merge says so."""
    hints = (Hint(frozenset({0, 1}), preferred=False),)
    best = merge_hints([hints], frozenset({0, 1}), policy)
    assert (best.nodes, best.preferred) == (nodes, preferred)
