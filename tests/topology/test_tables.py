"""The tables against counting by hand: every array, every mask."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.topology.machines import (
    draw_bridged_pairs,
    draw_dgx1v,
    draw_pcie_tree,
    draw_rtx8000,
    draw_switch,
    drawn_class,
    machine_class,
    shipped_class,
)
from topology.catalogue import load_machine, shipped_names
from topology.demands import meets, parse_min_link, worst_link
from topology.errors import SelectionError
from topology.gpuset import GpuSet, gpuset, positions, size
from topology.links import Level
from topology.model import TopologyClass
from topology.quality import bus_bandwidth, pair_score
from topology.tables import DEFAULT_MIX, Mix, Tables, build_quality, tables_for

SMALL = {
    "dgx1v": draw_dgx1v(),
    "rtx8000": draw_rtx8000(),
    "bridged": draw_bridged_pairs(),
    "switch": draw_switch(6),
    "a40x3": shipped_class("a40-3x-cgroup"),
    "two groups": drawn_class(5, links={"01": 18, "23": 18}, switch=(0, 0, 1, 1, -1)),
    "one": drawn_class(1),
    "none": drawn_class(0),
}


@pytest.mark.parametrize("cls", SMALL.values(), ids=SMALL)
def test_arrays_say_what_the_rules_for_one_set_say(cls: TopologyClass) -> None:
    """At every mask quality, pair score and worst link are those of the set alone."""
    tables = Tables(cls)
    for mask in range(1 << cls.count):
        members = GpuSet(mask)
        assert tables.quality[mask] == bus_bandwidth(cls, members)
        assert tables.pair_scores[mask] == pair_score(cls, members)
        assert tables.worst_link(members) == worst_link(cls, members)
        assert tables.nic_distances[mask] == sum(int(cls.nic[i]) for i in positions(members))
        assert tables.numa_counts[mask] == len({cls.numa[i] for i in positions(members)})


@pytest.mark.parametrize("cls", SMALL.values(), ids=SMALL)
def test_best_and_total_are_those_of_all_subsets(cls: TopologyClass) -> None:
    """Best and total over a mask are the maximum and the sum over its subsets of that size."""
    tables = Tables(cls)
    for k in range(cls.count + 2):
        best, total = tables.best(k), tables.total(k)
        for mask in range(1 << cls.count):
            subsets = [gpuset(some) for some in combinations(positions(GpuSet(mask)), k)]
            qualities = [tables.quality[one] for one in subsets]
            assert best[mask] == max(qualities, default=0.0)
            assert total[mask] == pytest.approx(sum(qualities))


def test_worth_is_the_mix_of_the_best_qualities() -> None:
    """V of a free set is the weighted sum of its best qualities over the machine's best."""
    mix = Mix(shares=((1, 0.5), (2, 0.3), (4, 0.2)))
    tables = Tables(draw_dgx1v(), mix)
    assert tables.worth[tables.everything] == pytest.approx(1.0)
    assert tables.worth[0] == 0.0
    # One GPU of each quad's double-linked pair is gone: the pairs keep 20 of 40, quads 10 of 80.
    free = gpuset([0, 1, 5, 6])
    best = tables.best(2)[free] / 40, tables.best(4)[free] / 80
    assert tables.worth[free] == pytest.approx(0.5 + 0.3 * best[0] + 0.2 * best[1])


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_machine_has_the_qualities_of_its_sets(name: str) -> None:
    """On every shipped machine the array agrees with the rule at masks spread over all of it."""
    cls = machine_class(load_machine(name))
    quality = build_quality(cls)
    for mask in range(0, 1 << cls.count, max(1, (1 << cls.count) // 257)):
        assert quality[mask] == bus_bandwidth(cls, GpuSet(mask))


def test_sixteen_gpus_have_tables() -> None:
    """A machine of 16 GPUs is tabled whole; one of 17 is not."""
    tables = Tables(draw_pcie_tree(16))
    assert tables.exact
    assert tables.quality.shape == (1 << 16,)
    seventeen = drawn_class(16)
    larger = TopologyClass(
        nvlinks=((0,) * 17,) * 17,
        switch=(-1,) * 17,
        pcie=tuple(
            tuple(Level.SELF if i == j else Level.PIX for j in range(17)) for i in range(17)
        ),
        compute=("",) * 17,
        pcie_gen=(0,) * 17,
        numa=(0,) * 17,
        nic=(Level.SYS,) * 17,
    )
    assert Tables(seventeen).exact
    assert not Tables(larger).exact


def test_a_mesh_of_sixteen_agrees_with_the_rule() -> None:
    """A mesh larger than any board, judged by its widest ring, has one answer in both ways."""
    links = {f"{i:x}{(i + 1) % 16:x}": 2 for i in range(16)} | {"08": 1, "4c": 1, "2a": 1}
    cls = drawn_class(16, links=links)
    quality = build_quality(cls)
    for mask in range(0, 1 << 16, 97):
        assert quality[mask] == bus_bandwidth(cls, GpuSet(mask))
    assert quality[-1] == 80.0


def test_sets_stand_in_the_order_of_their_positions() -> None:
    """Candidates of one size are ordered by their lowest positions."""
    sets = Tables(draw_rtx8000()).candidates(2)
    assert [tuple(positions(GpuSet(int(one)))) for one in sets] == list(combinations(range(4), 2))


@pytest.mark.parametrize("word", ["NV1", "NV2", "PIX", "PHB", "SYS"])
def test_demands_hold_for_every_pair(word: str) -> None:
    """A mask meets a demand exactly if each of its pairs does."""
    tables = Tables(draw_dgx1v())
    demand = parse_min_link(word)
    fine = tables.within(demand)
    assert fine.any()
    for mask in range(1 << 8):
        assert fine[mask] == meets(tables.cls, GpuSet(mask), demand)
        pairs = [gpuset(pair) for pair in combinations(positions(GpuSet(mask)), 2)]
        assert fine[mask] == all(fine[pair] for pair in pairs)


def test_arrays_cannot_be_written() -> None:
    """Tables are shared by all nodes of a class: nobody may change them."""
    tables = Tables(draw_rtx8000())
    with pytest.raises(ValueError, match="read-only"):
        tables.quality[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        np.copyto(tables.worth, 0.0)


def test_tables_of_one_class_are_shared() -> None:
    """Asking twice for one class and mix gives the same tables, another mix gives others."""
    cls = draw_rtx8000()
    assert tables_for(cls) is tables_for(draw_rtx8000(), DEFAULT_MIX)
    assert tables_for(cls) is not tables_for(cls, Mix(shares=((2, 1.0),)))


@pytest.mark.parametrize(
    "shares",
    [(), ((0, 1.0),), ((1, 0.0),), ((1, -1.0),), ((1, float("nan")),), ((2, 1.0), (2, 1.0))],
)
def test_a_mix_that_makes_no_sense_is_refused(shares: tuple[tuple[int, float], ...]) -> None:
    """Sizes start at 1 and stand once; weights are positive numbers."""
    with pytest.raises(SelectionError, match="mix"):
        Mix(shares=shares)


def test_a_mix_larger_than_the_machine_values_what_fits() -> None:
    """Sizes that no set of the machine has do not count."""
    tables = Tables(draw_rtx8000(), Mix(shares=((2, 0.5), (8, 0.5))))
    assert tables.worth[tables.everything] == pytest.approx(0.5)
    assert size(tables.everything) == 4
