"""Predicted bus bandwidth against measured anchors, and the reference's pair score."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest

from tests.topology.machines import (
    draw_bridged_pairs,
    draw_dgx1p,
    draw_dgx1v,
    draw_pcie_tree,
    draw_rtx8000,
    draw_switch,
    drawn_class,
    shipped_class,
)
from topology.gpuset import EMPTY, GpuSet, full_set, gpuset
from topology.links import Level
from topology.model import TopologyClass
from topology.quality import bus_bandwidth, pair_score, ring_count, worst_hop
from topology.rates import nvlink_rate, nvls_gain, pcie_rate


def _of(cls: TopologyClass, *members: int) -> float:
    return bus_bandwidth(cls, gpuset(members))


@pytest.mark.parametrize("members", [EMPTY, gpuset([3])])
def test_one_gpu_or_none_has_no_traffic(members: GpuSet) -> None:
    """The bandwidth of fewer than two GPUs is 0."""
    assert bus_bandwidth(draw_switch(8), members) == 0.0


def test_a_bridged_pair_is_ten_times_a_crossing_set() -> None:
    """On A100s a bridged pair has 208 GB/s, three GPUs that cross the sockets 20."""
    machine = draw_bridged_pairs()
    assert _of(machine, 0, 1) == 208.0
    assert _of(machine, 0, 1, 4) == 20.0


def test_v100_pairs_have_their_measured_steps() -> None:
    """Double link, single link, and PCIe across the sockets: 40, 20 and 10 GB/s."""
    board = draw_dgx1v()
    assert (_of(board, 0, 3), _of(board, 0, 1), _of(board, 0, 5)) == (40.0, 20.0, 10.0)


@pytest.mark.parametrize(
    ("size", "expected"), [(2, 18), (3, 36), (4, 36), (5, 36), (6, 36), (7, 36), (8, 72)]
)
def test_the_best_sets_of_a_dgx1p(size: int, expected: float) -> None:
    """A DGX-1P's best sets have 18, 36 and, all eight, 72 GB/s."""
    board = draw_dgx1p()
    assert expected == max(_of(board, *members) for members in combinations(range(8), size))


@pytest.mark.parametrize(
    "name", ["hgx-h100-8x-ib", "dgx-a100-8x", "hgx-b200-8x", "a800-8x", "oci-8x-a100-nps4"]
)
@pytest.mark.parametrize("size", range(2, 9))
def test_equal_sizes_under_one_switch_are_equal(name: str, size: int) -> None:
    """Under one healthy NVSwitch all sets of a size have one bandwidth."""
    machine = shipped_class(name)
    assert len({_of(machine, *members) for members in combinations(range(8), size)}) == 1


@pytest.mark.parametrize("count", [4, 16])
def test_the_links_to_a_switch_are_shared_by_all_pairs(count: int) -> None:
    """A GPU's 18 links to the switch are 18 rings at most, however many pairs they join."""
    assert ring_count(draw_switch(count), full_set(count)) == 18


@pytest.mark.parametrize(
    ("compute", "links", "size", "measured"),
    [
        ("8.0", 12, 8, 235),
        ("9.0", 18, 4, 370),
        ("9.0", 18, 5, 420),
        ("9.0", 18, 6, 440),
        ("9.0", 18, 7, 460),
        ("9.0", 18, 8, 480),
        ("10.0", 18, 6, 778),
        ("10.0", 18, 7, 811),
        ("10.0", 18, 8, 838),
    ],
)
def test_switched_sets_lie_near_their_measured_bandwidth(
    compute: str, links: int, size: int, measured: float
) -> None:
    """Predictions for NVSwitch boards lie within 10 % of published nccl-tests runs."""
    machine = draw_switch(8, links=links, compute=compute)
    assert bus_bandwidth(machine, full_set(size)) == pytest.approx(measured, rel=0.1)


def test_a_degraded_gpu_slows_only_its_sets() -> None:
    """A GPU that has lost half of its switch links halves the sets it is in, and no others."""
    healthy = draw_switch(8, compute="8.0", links=12)
    links = tuple(
        tuple(6 if cell and 0 in (i, j) else cell for j, cell in enumerate(row))
        for i, row in enumerate(healthy.nvlinks)
    )
    degraded = msgspec.structs.replace(healthy, nvlinks=links)
    assert _of(degraded, 0, 1) == 120.0
    assert _of(degraded, 1, 2) == 240.0


def test_two_switch_groups_meet_over_pcie() -> None:
    """A set that spans two NVSwitch groups has no more than the PCIe between them."""
    machine = drawn_class(
        4, links={"01": 18, "23": 18}, switch=(0, 0, 1, 1), compute="9.0", pcie_gen=5
    )
    assert _of(machine, 0, 1) == pytest.approx(370.8)
    assert _of(machine, 0, 1, 2, 3) == 40.0


def test_a_gpu_beside_the_switch_is_reached_over_pcie() -> None:
    """Links to a switch carry no ring to a GPU that hangs on none."""
    machine = drawn_class(
        3, links={"01": 18}, switch=(0, 0, -1), compute="9.0", pcie_gen=5, other=Level.PIX
    )
    assert _of(machine, 0, 2) == pytest.approx(48 * 0.92)
    assert _of(machine, 0, 1, 2) == pytest.approx(48 * 0.92)


def test_four_a100s_with_four_links_a_pair_use_all_of_them() -> None:
    """Four A100s wired directly, four links a pair, run twelve rings: 208 GB/s."""
    machine = shipped_class("hgx-a100-4x-nps4")
    assert ring_count(machine, full_set(4)) == 12
    assert bus_bandwidth(machine, full_set(4)) == 208.0


def test_nvlinks_carry_hops_of_a_pcie_ring() -> None:
    """Pairs bridged across two sockets close a ring whose worst hop stays inside a socket."""
    machine = draw_rtx8000()
    assert worst_hop(machine, full_set(4)) is Level.NODE
    assert worst_hop(machine, gpuset([0, 1, 3])) is Level.SYS


def test_the_worst_hop_decides_on_a_pcie_tree() -> None:
    """On a PCIe tree each further level that a set spans costs bandwidth."""
    tree = draw_pcie_tree()
    spans = [full_set(2), full_set(4), full_set(8), full_set(16)]
    assert [worst_hop(tree, span) for span in spans] == [
        Level.PIX,
        Level.PXB,
        Level.NODE,
        Level.SYS,
    ]
    bandwidths = [bus_bandwidth(tree, span) for span in spans]
    assert bandwidths == sorted(set(bandwidths), reverse=True)


def test_mixed_gpus_run_at_the_slowest_rate() -> None:
    """The slowest generation among the members decides, for links, gain and slot."""
    assert nvlink_rate(["9.0", "7.0"], switched=True) == 20.0
    assert nvls_gain(["9.0", "8.0"], 8) == 1.0
    assert pcie_rate([5, 3], Level.SYS) == pcie_rate([3], Level.SYS)


def test_unknown_generations_promise_the_least() -> None:
    """An unknown compute capability or slot counts as the slowest data-centre one."""
    assert nvlink_rate([""], switched=False) == 18.0
    assert pcie_rate([0], Level.SYS) == pcie_rate([3], Level.SYS) == 10.0


@pytest.mark.parametrize(
    ("members", "score"),
    [((0, 3), 230), ((2, 3), 250), ((0, 2, 3), 610), ((0, 1, 2, 3), 1120), (range(8), 3000)],
)
def test_pair_scores_are_the_references(members: tuple[int, ...], score: int) -> None:
    """The pair score of sets of a DGX-1V is what the reference allocator computes."""
    assert score == pair_score(draw_dgx1v(), gpuset(members))


@pytest.mark.parametrize(
    ("size", "score"),
    [(2, 1820), (3, 5460), (4, 10920), (5, 18160), (6, 27220), (7, 38100), (8, 50800)],
)
def test_pair_scores_see_the_switch(size: int, score: int) -> None:
    """Eight GPUs with 18 links through a switch have the scores that counting those links gives."""
    assert score == pair_score(draw_switch(8), full_set(size))


def test_a_pair_score_counts_eighteen_links_at_most() -> None:
    """The reference has no score for more than 18 NVLinks of a pair: more count as 18."""
    pair = gpuset([0, 1])
    assert pair_score(draw_switch(2, links=36), pair) == pair_score(draw_switch(2, links=18), pair)
