"""How a run stands, as values."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cli.discovered import discover_machine
from embedded.picture import GpuCell, NodeRow, count_pods, draw_row, pick_example
from runtime.objects import Pod
from topology.catalogue import load_machine
from topology.model import NodeTopology


@pytest.fixture(scope="module")
def bridges() -> NodeTopology:
    """Lend a machine of eight GPUs, bridged in pairs."""
    return discover_machine(load_machine("a40-8x-bridges"))


def pod(phase: str, node: str | None = None) -> Pod:
    """Make a pod in a phase."""
    whole: dict[str, Any] = {"spec": {"nodeName": node}, "status": {"phase": phase}}
    return msgspec.convert(whole, Pod)


def test_pods_are_counted_by_what_became_of_them() -> None:
    """Bound counts all that ever had a node; a failed pod without one is not pending."""
    counts = count_pods(
        [
            pod("Pending"),
            pod("Pending", "n1"),
            pod("Running", "n1"),
            pod("Succeeded", "n1"),
            pod("Failed", "n1"),
            pod("Failed"),
        ]
    )
    assert (counts.created, counts.bound, counts.running) == (6, 4, 1)
    assert (counts.pending, counts.completed, counts.failed) == (1, 1, 2)


def test_a_row_tells_the_best_set_that_is_left(bridges: NodeTopology) -> None:
    """With one GPU of a bridged pair gone, the pair is no longer the best to be had."""
    uuids = [gpu.uuid for gpu in sorted(bridges.gpus, key=lambda gpu: gpu.index)]
    pair_free = draw_row("n1", "m", bridges, dict.fromkeys(uuids[2:], "p"), ())
    pair_broken = draw_row("n1", "m", bridges, dict.fromkeys(uuids[:1] + uuids[3:], "p"), ())
    assert (pair_free.free, pair_free.best_size) == (2, 2)
    assert (pair_broken.free, pair_broken.best_size) == (2, 2)
    assert pair_free.best_gbs > pair_broken.best_gbs > 0


def test_an_unhealthy_gpu_is_not_free(bridges: NodeTopology) -> None:
    """It shows in its cell and counts neither as free nor for the best set."""
    row = draw_row("n1", "m", bridges, {}, [bridges.gpus[0].uuid])
    assert row.free == 7
    assert row.best_size == 4
    assert [cell.healthy for cell in row.cells].count(False) == 1
    assert [cell.index for cell in row.cells] == list(range(8))


def test_a_node_that_published_nothing_has_no_cells() -> None:
    """A starting node is shown without GPUs."""
    assert draw_row("n1", "m", None, {}, ()) == NodeRow("n1", "m", ())


def test_the_example_is_the_node_with_most_kinds_of_links(bridges: NodeTopology) -> None:
    """Among nodes with two pods of several GPUs the links decide; an unknown node is never it."""
    plain = discover_machine(load_machine("l40s-4x"))

    def row(name: str, *holders: str) -> NodeRow:
        return NodeRow(name, "m", tuple(GpuCell(i, f"{i}", h) for i, h in enumerate(holders)))

    singles = row("n1", "a", "b", "c", "d")
    pair = row("n2", "e", "e", "", "")
    pairs = row("n3", "f", "f", "g", "g")
    linked = row("n4", "h", "h", "i", "i", "", "", "", "")
    known = {"n1": plain, "n2": plain, "n3": plain, "n4": bridges}
    unknown = NodeRow("n0", "m", ())
    assert pick_example([singles, pair, pairs, linked, unknown], known) == linked
    assert pick_example([singles, pair, pairs], known) == pairs
    assert pick_example([singles, pair], known) == pair
    assert pick_example([unknown], known) is None
