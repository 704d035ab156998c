"""A node in text, as a person reads it."""

from __future__ import annotations

import pytest

from cli.discovered import discover_machine
from topology.catalogue import load_machine
from topology.drawing import draw_matrix, draw_node
from topology.model import NodeTopology


@pytest.fixture
def dgx() -> NodeTopology:
    """Lend a DGX-1V."""
    return discover_machine(load_machine("dgx1-v100"))


def test_the_matrix_reads_as_topo_m(dgx: NodeTopology) -> None:
    """A row holds the GPU's cells, its NICs', its NUMA node and its CPUs."""
    rows = [line.split() for line in draw_matrix(dgx).splitlines()]
    assert rows[0][:3] == ["GPU0", "GPU1", "GPU2"]
    assert rows[1][:9] == ["GPU0", "X", "NV1", "NV1", "NV2", "NV2", "SYS", "SYS", "SYS"]


def test_a_drawn_node_fits_the_width(dgx: NodeTopology) -> None:
    """No line of the boxes is wider than asked for, however long the pods' names are."""
    holders = {gpu.uuid: "a-name-far-longer-than-a-box" for gpu in dgx.gpus}
    boxes = draw_node(dgx, holders, width=60).splitlines()
    assert all(len(line) <= 60 for line in boxes if line.startswith("  "))


def test_each_gpu_shows_its_pod(dgx: NodeTopology) -> None:
    """A held GPU carries the pod's name, a free one says so."""
    text = draw_node(dgx, {dgx.gpus[0].uuid: "job-a"})
    assert text.count("job-a ") == 1
    assert text.count("free") == 7


def test_the_links_are_told_by_kind(dgx: NodeTopology) -> None:
    """Direct NVLinks are listed by count, and what has none by level."""
    lines = draw_node(dgx, {}).splitlines()
    assert "NV2: 0-3 0-4 1-2 1-5 2-3 4-7 5-6 6-7" in lines
    assert "NV1: 0-1 0-2 1-3 2-6 3-7 4-5 4-6 5-7" in lines


def test_a_switch_is_told_once() -> None:
    """GPUs of one NVSwitch are one line, not 120 pairs."""
    text = draw_node(discover_machine(load_machine("dgx2-16x-v100")), {})
    assert "NVSwitch: GPU 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15, 6 NVLinks each" in text
    assert "NV6:" not in text


def test_a_pod_is_told_with_its_links_and_bandwidth(dgx: NodeTopology) -> None:
    """A set of several GPUs carries its links and its predicted bus bandwidth."""
    holders = {dgx.gpus[0].uuid: "pair", dgx.gpus[3].uuid: "pair", dgx.gpus[5].uuid: "one"}
    lines = draw_node(dgx, holders).splitlines()
    assert lines[-2:] == ["one: GPU 5", "pair: GPU 0,3; 1 x NV2; 40 GB/s"]
