"""From labels to nodes."""

from __future__ import annotations

import msgspec
import pytest

from runtime.objects import Node
from scheduler.load.directory import Directory
from scheduler.load.queries import NODE_LABELS
from tests.scheduler.load.answering import book, node

NODES = Directory.of(
    {
        "n1": ("10.0.0.1", "fd00::1"),
        "ip-10-0-0-2.example.internal": ("10.0.0.2", "Machine-2.example.com"),
        "a.west": ("10.0.0.9",),
        "a.east": ("10.0.0.9",),
        "n2": ("n1",),
    },
    NODE_LABELS,
)

ROWS = [
    ({"node": "n1"}, "n1"),
    ({"kubernetes_node": "n1"}, "n1"),
    ({"Hostname": "n1"}, "n1"),
    ({"instance": "n1:9100"}, "n1"),
    ({"instance": "10.0.0.1:9100"}, "n1"),
    ({"instance": "[fd00::1]:9100"}, "n1"),
    ({"instance": "fd00::1"}, "n1"),
    ({"instance": "N1:9100"}, "n1"),
    ({"instance": "ip-10-0-0-2:9100"}, "ip-10-0-0-2.example.internal"),
    ({"nodename": "machine-2.example.com"}, "ip-10-0-0-2.example.internal"),
    # The surest label decides, and one that means nobody does not.
    ({"node": "n1", "instance": "10.0.0.2:9100"}, "n1"),
    ({"node": "gone", "instance": "10.0.0.2:9100"}, "ip-10-0-0-2.example.internal"),
    # What fits two nodes fits none.
    ({"instance": "10.0.0.9:9100"}, None),
    ({"node": "a"}, None),
    # A node's own name beats what another calls itself.
    ({"node": "n2"}, "n2"),
    ({"node": "n3"}, None),
    ({"instance": ""}, None),
    ({"instance": ":9100"}, None),
    ({"pod": "n1"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("labels", "want"), ROWS)
def test_labels_find_the_node(labels: dict[str, str], want: str | None) -> None:
    """By name, host name or address, with a port or without."""
    assert NODES.find(labels) == want


def test_a_label_of_ones_own_is_looked_at() -> None:
    """node_labels is a setting."""
    nodes = Directory.of({"n1": ()}, ("machine",))
    assert nodes.find({"machine": "n1", "node": "n2"}) == "n1"
    assert nodes.find({"node": "n1"}) is None


def test_the_book_builds_a_directory_when_nodes_change() -> None:
    """Heartbeats do not, new nodes, addresses and removals do."""
    nodes = book(node("n1", address="10.0.0.1"))
    first = nodes.directory
    nodes.take(node("n1", address="10.0.0.1"))
    assert nodes.directory is first
    nodes.take(node("n1", address="10.0.0.7"))
    assert nodes.directory.find({"instance": "10.0.0.7:9100"}) == "n1"
    assert nodes.directory.find({"instance": "10.0.0.1:9100"}) is None
    nodes.keep((node("n2"),))
    assert nodes.directory.names == ("n2",)
    nodes.drop("n2")
    nodes.drop("n2")
    assert nodes.directory.names == ()


def test_a_quantity_that_does_not_read_is_told_and_counts_as_unknown() -> None:
    """The node stays, and so do its other amounts."""
    problems: list[str] = []
    nodes = book(node("n1", cpu="many", memory="1Ki"), problems=problems)
    assert nodes.sizes["n1"].cpu == 0
    assert nodes.sizes["n1"].memory == 1024
    assert problems[0].startswith("node n1: 'many' is not a quantity")


def test_a_machine_may_be_larger_than_what_pods_may_use() -> None:
    """Samples are shares of the capacity, requests of the allocatable; the one stands for both."""
    status = {"allocatable": {"cpu": "6"}, "capacity": {"cpu": "8", "memory": "32Gi"}}
    whole = {"metadata": {"name": "n1"}, "status": status}
    part = {"metadata": {"name": "n2"}, "status": {"allocatable": {"cpu": "6"}}}
    sizes = book(msgspec.convert(whole, Node), msgspec.convert(part, Node)).sizes
    assert (sizes["n1"].cpu, sizes["n1"].cpu_capacity) == (6, 8)
    assert (sizes["n1"].memory, sizes["n1"].memory_capacity) == (0, 32 << 30)
    assert (sizes["n2"].cpu, sizes["n2"].cpu_capacity) == (6, 6)
