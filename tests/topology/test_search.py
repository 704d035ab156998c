"""The bounded search: against the tables where both can answer, and on machines above 16 GPUs."""

from __future__ import annotations

import pytest

from tests.topology.machines import (
    draw_bridged_pairs,
    draw_dgx1v,
    draw_pcie_tree,
    draw_switch,
    drawn_class,
    shipped_class,
)
from topology import search
from topology.choice import Request
from topology.demands import MinLink, meets, parse_min_link
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, full_set, gpuset, positions, size
from topology.links import Level
from topology.model import TopologyClass
from topology.policies import PROFILES, TRAINING, choose
from topology.profiles import Profile
from topology.tables import Tables, tables_for

_KNOWN = {
    "dgx1v": draw_dgx1v(),
    "bridged pairs": draw_bridged_pairs(),
    "a40x10": shipped_class("a40-10x-two-switches"),
    "tree": draw_pcie_tree(12),
    "switch": draw_switch(12),
}


def _large(count: int, *, links: int = 0, group: int = 0) -> TopologyClass:
    """Pairs under one PCIe switch, fours under two, eights in a NUMA node; groups of NVLinks."""

    def level(i: int, j: int) -> Level:
        for width, near in ((1, Level.SELF), (2, Level.PIX), (4, Level.PXB), (8, Level.NODE)):
            if i // width == j // width:
                return near
        return Level.SYS

    return TopologyClass(
        nvlinks=tuple(
            tuple(
                links if i != j and group and i // group == j // group else 0 for j in range(count)
            )
            for i in range(count)
        ),
        switch=tuple(i // group if group > 2 else -1 for i in range(count)),
        pcie=tuple(tuple(level(i, j) for j in range(count)) for i in range(count)),
        compute=("9.0",) * count,
        pcie_gen=(5,) * count,
        numa=tuple(i // 8 for i in range(count)),
        nic=(Level.SYS,) * count,
    )


@pytest.mark.parametrize("cls", _KNOWN.values(), ids=_KNOWN)
@pytest.mark.parametrize("enumerate_up_to", [0, search.ENUMERATE])
def test_the_search_finds_the_tables_bandwidth(cls: TopologyClass, enumerate_up_to: int) -> None:
    """On machines that have tables the search finds sets as fast, grown or enumerated."""
    tables = Tables(cls)
    for mask in range(3, 1 << cls.count, (1 << cls.count) // 37 | 1):
        free = GpuSet(mask)
        for count in {1, 2, 3, 4, size(free)} & set(range(1, size(free) + 1)):
            found = search.choose(
                tables,
                TRAINING,
                Request(
                    free=free,
                    count=count,
                    must=EMPTY,
                    allowed=tables.everything,
                    min_link=None,
                ),
                enumerate_up_to=enumerate_up_to,
            )
            exact = choose(tables, free, count)
            assert found.bus_bandwidth_gbs == exact.bus_bandwidth_gbs
            assert size(found.members) == count
            assert not found.members & ~free


@pytest.mark.parametrize(
    ("free", "count", "profile", "members"),
    [
        ([1, 2, 3, 4], 2, PROFILES["inference"], [2, 3]),  # not 1, 4, which are too slow
        ([0, 1, 2, 4, 6], 1, TRAINING, [1]),  # not 6, whose links are fewer but cost more
        ([0, 2, 3, 4, 6], 1, TRAINING, [3]),
    ],
)
def test_the_search_weighs_speed_and_loss_as_the_tables_do(
    free: list[int], count: int, profile: Profile, members: list[int]
) -> None:
    """Tolerance bounds the search too, and what is left counts before the links that are cut."""
    tables = Tables(draw_dgx1v())
    request = Request(gpuset(free), count, EMPTY, tables.everything, None)
    found = search.choose(tables, profile, request)
    assert found.members == gpuset(members)
    worth = tables.worth[request.free] - tables.worth[request.free ^ found.members]
    assert found.loss == pytest.approx(worth)


@pytest.mark.parametrize(
    ("cls", "count", "bandwidth"),
    [
        (_large(24), 2, 44.16),
        (_large(24), 4, 43.2),
        (_large(24), 8, 40.8),
        (_large(24), 9, 40.0),
        (_large(64), 4, 43.2),
        (_large(32, links=18, group=16), 8, 478.332),
        (_large(32, links=18, group=16), 16, 478.332),
        (_large(32, links=18, group=16), 17, 40.0),
        (_large(20, links=4, group=2), 2, 82.4),
    ],
)
def test_large_machines_get_their_best_sets(
    cls: TopologyClass, count: int, bandwidth: float
) -> None:
    """Above 16 GPUs the best bandwidth that the wiring allows is found."""
    tables = tables_for(cls)
    assert choose(tables, tables.everything, count).bus_bandwidth_gbs == bandwidth


def test_a_single_gpu_leaves_bridges_whole() -> None:
    """Of 20 GPUs in bridged pairs, one of them taken, the widow goes first."""
    tables = tables_for(_large(20, links=4, group=2))
    free = GpuSet(tables.everything & ~(1 << 7))
    assert choose(tables, free, 1).members == gpuset([6])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_keeps_the_demands(profile: Profile) -> None:
    """Whatever the profile, the set has the size asked for, holds `must` and stays within."""
    tables = tables_for(_large(24))
    must, allowed = gpuset([5, 20]), GpuSet(full_set(24) & ~0b110)
    free = GpuSet(full_set(24) & ~(1 << 8))
    for count in (2, 3, 7, 12):
        members = choose(tables, free, count, must=must, allowed=allowed, profile=profile).members
        assert size(members) == count
        assert members & must == must
        assert not members & ~(free & allowed)


def test_spread_takes_different_numa_nodes() -> None:
    """Spreading takes one GPU of each NUMA node."""
    tables = tables_for(_large(24))
    members = choose(tables, tables.everything, 3, profile=PROFILES["spread"]).members
    assert [i // 8 for i in positions(members)] == [0, 1, 2]


@pytest.mark.parametrize(("word", "count"), [("PXB", 4), ("NODE", 8), ("PIX", 2)])
def test_a_min_link_is_met_above_sixteen(word: str, count: int) -> None:
    """Above 16 GPUs too each pair meets the min-link."""
    tables = tables_for(_large(24))
    demand = parse_min_link(word)
    choice = choose(tables, tables.everything, count, min_link=demand)
    assert meets(tables.cls, choice.members, demand)


def test_a_set_that_no_growth_finds_is_found_for_a_min_link() -> None:
    """The only three GPUs that are all joined each have a nearer and a farther partner beside."""
    inner = dict.fromkeys(("01", "02", "12"), 2)
    nearer = dict.fromkeys(("03", "14", "25"), 4)
    farther = dict.fromkeys(("06", "17", "28"), 1)
    tables = Tables(drawn_class(20, links=inner | nearer | farther))
    choice = choose(tables, tables.everything, 3, min_link=parse_min_link("NV"))
    assert choice.members == gpuset([0, 1, 2])


@pytest.mark.parametrize(
    ("count", "must", "demand"),
    [
        (5, EMPTY, MinLink(level=Level.PXB)),
        (2, gpuset([0]), MinLink(level=Level.SELF, nvlinks=1)),
        (3, gpuset([0, 9]), MinLink(level=Level.NODE)),
    ],
)
def test_a_min_link_that_no_set_meets_is_refused_above_sixteen(
    count: int, must: GpuSet, demand: MinLink
) -> None:
    """A demand that cannot be met is refused there with the same line."""
    tables = tables_for(_large(24))
    with pytest.raises(SelectionError, match=rf"min-link .*: no {count} of the available GPUs"):
        choose(tables, tables.everything, count, must=must, min_link=demand)


def test_a_demand_that_growing_misses_is_still_met() -> None:
    """Where growing by nearness runs into dead ends, a set that meets the demand is found."""
    near = [0] * 18
    for i in range(6, 12):
        for j in range(6, 12):
            if i != j:
                near[i] |= 1 << j
    found = search.find_clique(tuple(near), full_set(18), 6, EMPTY)
    assert found == gpuset(range(6, 12))
    assert search.find_clique(tuple(near), full_set(18), 7, EMPTY) is None
    assert search.find_clique(tuple(near), full_set(18), 3, gpuset([8])) == gpuset([6, 7, 8])
