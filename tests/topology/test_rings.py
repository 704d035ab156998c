"""NVLink rings: the published table of the DGX-1 boards, and small meshes known by hand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from tests.topology.machines import draw_dgx1p, draw_dgx1v, drawn_class, pairs_among
from topology.cycles import all_cycles, has_cycle
from topology.gpuset import GpuSet, full_set, gpuset
from topology.quality import ring_count
from topology.rings import count_rings, upper_bound

# Size: number of sets by ring count, over all sets of that size (an integer program's answers).
DGX1V = {
    2: {2: 8, 1: 8, 0: 12},
    3: {2: 8, 0: 48},
    4: {4: 2, 2: 6, 0: 62},
    5: {2: 24, 0: 32},
    6: {4: 4, 2: 24},
    7: {4: 8},
    8: {6: 1},
}
DGX1P_BEST = {2: 1, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 4}


@pytest.mark.parametrize(("size", "expected"), DGX1V.items())
def test_dgx1v_has_the_known_ring_counts(size: int, expected: dict[int, int]) -> None:
    """Over all sets of one size, a DGX-1V has exactly the known numbers of rings."""
    board = draw_dgx1v()
    assert expected == Counter(
        ring_count(board, gpuset(members)) for members in combinations(range(8), size)
    )


@pytest.mark.parametrize(("size", "expected"), DGX1P_BEST.items())
def test_dgx1p_has_the_known_best_ring_count(size: int, expected: int) -> None:
    """The best set of each size on a DGX-1P has the known number of rings."""
    board = draw_dgx1p()
    assert expected == max(
        ring_count(board, gpuset(members)) for members in combinations(range(8), size)
    )


@pytest.mark.parametrize(
    ("count", "links", "expected"),
    [
        (3, 1, 2),
        (4, 1, 2),  # K4 with arcs both ways does not fall apart into three rings
        (4, 4, 12),  # four A100s, four links a pair: all twelve links of each in use
        (4, 6, 18),  # four H100s
        (5, 1, 4),
        (6, 1, 4),  # nor K6 into five
        (7, 1, 6),
        (8, 1, 7),
    ],
)
def test_complete_meshes_use_what_graph_theory_allows(
    count: int, links: int, expected: int
) -> None:
    """A complete mesh falls apart into n-1 rings, except 4 and 6 GPUs with single links."""
    mesh = tuple(tuple(0 if i == j else links for j in range(count)) for i in range(count))
    assert expected == count_rings(mesh)


def test_rings_stay_below_every_cut() -> None:
    """Two triangles that one pair of links joins carry no more rings than that join."""
    mesh = drawn_class(6, links=dict.fromkeys(pairs_among("012") + pairs_among("345"), 4))
    joined = [list(row) for row in mesh.nvlinks]
    for one, two in ((0, 3), (1, 4)):
        joined[one][two] = joined[two][one] = 1
    links = tuple(map(tuple, joined))
    assert upper_bound(links) == 2
    assert count_rings(links) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_gpus_have_no_ring(count: int) -> None:
    """No GPU and one GPU make no ring."""
    assert count_rings(((0,) * count,) * count) == 0


def test_large_meshes_are_judged_by_their_widest_ring() -> None:
    """Twelve GPUs in a circle of double links carry the circle twice each way."""
    circle = {f"{i:x}{(i + 1) % 12:x}": 2 for i in range(12)}
    mesh = drawn_class(12, links=circle)
    assert ring_count(mesh, full_set(12)) == 4
    assert ring_count(mesh, full_set(11)) == 0
    assert ring_count(mesh, gpuset([3, 4])) == 2


def test_a_ring_that_no_search_finds_soon_is_settled_by_the_table() -> None:
    """On the Petersen graph, which has no closed ring, search and table agree for every set."""
    outer = [(i, (i + 1) % 5) for i in range(5)]
    spokes = [(i, i + 5) for i in range(5)]
    inner = [(5 + i, 5 + (i + 2) % 5) for i in range(5)]
    neighbours = [0] * 10
    for one, two in outer + spokes + inner:
        neighbours[one] |= 1 << two
        neighbours[two] |= 1 << one
    table = all_cycles(tuple(neighbours))
    assert not table[-1]
    assert table.any()
    assert [has_cycle(tuple(neighbours), GpuSet(mask)) for mask in range(1 << 10)] == table.tolist()
