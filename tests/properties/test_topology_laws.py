"""Laws of quality, tables and choices, over random machines.

- bandwidth does not depend on how the GPUs are numbered;
- the arrays say what the rule for one set says;
- another free GPU never lowers the best bandwidth, nor the worth of what is free;
- a choice is within what is free and allowed, has the size asked for and holds `must`;
- the default profile's bandwidth is the best there is;
- no pair of a choice is below the min-link, and a refusal means that no set would do;
- another packing of the same rings changes nothing: the count is that of a plain exhaustive search.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.strategies import gpu_sets, machines, mixes, relabel, relabel_set
from topology.cycles import all_cycles, has_cycle
from topology.demands import meets, parse_min_link
from topology.errors import SelectionError
from topology.gpuset import GpuSet, gpuset, positions, size
from topology.model import CountMatrix, TopologyClass
from topology.policies import PROFILES, choose
from topology.profiles import Profile
from topology.quality import bus_bandwidth, pair_score
from topology.rings import count_rings
from topology.tables import Mix, Tables

_LAWS = settings(deadline=None, max_examples=60)


@_LAWS
@given(data=st.data(), cls=machines())
def test_names_do_not_matter(data: st.DataObject, cls: TopologyClass) -> None:
    """A set has one bandwidth and score however its machine's GPUs are numbered."""
    order = data.draw(st.permutations(range(cls.count)))
    members = data.draw(gpu_sets(cls))
    other, there = relabel(cls, order), relabel_set(members, order)
    assert bus_bandwidth(cls, members) == bus_bandwidth(other, there)
    assert pair_score(cls, members) == pair_score(other, there)


@_LAWS
@given(cls=machines(), mix=mixes())
def test_arrays_agree_with_the_rule(cls: TopologyClass, mix: Mix) -> None:
    """At every mask the quality array holds the bandwidth of that set."""
    tables = Tables(cls, mix)
    for mask in range(1 << cls.count):
        assert tables.quality[mask] == bus_bandwidth(cls, GpuSet(mask))


@_LAWS
@given(cls=machines(), mix=mixes())
def test_another_free_gpu_never_lowers_anything(cls: TopologyClass, mix: Mix) -> None:
    """Best bandwidth of each size and worth grow with the set of free GPUs."""
    tables = Tables(cls, mix)
    masks = np.arange(1 << cls.count)
    growing = [tables.worth, *(tables.best(k) for k in range(2, cls.count + 1))]
    for i in range(cls.count):
        for values in growing:
            assert (values[masks | 1 << i] >= values).all()


@_LAWS
@given(
    data=st.data(), cls=machines(), mix=mixes(), profile=st.sampled_from(list(PROFILES.values()))
)
def test_a_choice_is_what_was_asked_for(
    data: st.DataObject, cls: TopologyClass, mix: Mix, profile: Profile
) -> None:
    """A choice has the size, is free and allowed, holds `must`; if there is none, none exists."""
    tables = Tables(cls, mix)
    free, allowed, must = (data.draw(gpu_sets(cls)) for _ in range(3))
    count = data.draw(st.integers(1, cls.count))
    word = data.draw(st.sampled_from(("SYS", "NODE", "PXB", "PIX", "NV", "NV4")))
    demand = parse_min_link(word)
    usable = GpuSet(free & allowed)
    possible = [
        one
        for one in map(gpuset, combinations(positions(usable), count))
        if one & must == must and meets(cls, one, demand)
    ]
    if not possible:
        with pytest.raises(SelectionError):
            choose(
                tables, free, count, must=must, allowed=allowed, profile=profile, min_link=demand
            )
        return
    choice = choose(
        tables, free, count, must=must, allowed=allowed, profile=profile, min_link=demand
    )
    assert choice.members in possible
    best = max(bus_bandwidth(cls, one) for one in possible)
    assert choice.bus_bandwidth_gbs == bus_bandwidth(cls, choice.members)
    assert choice.bus_bandwidth_gbs >= best * (1 - profile.tolerance)
    assert choice.pair_score == pair_score(cls, choice.members)
    assert choice.loss >= 0


@_LAWS
@given(data=st.data(), cls=machines())
def test_equal_bandwidth_without_switch_has_the_greatest_score(
    data: st.DataObject, cls: TopologyClass
) -> None:
    """On machines without a switch no set as fast as the default choice has a greater score."""
    if max(cls.switch) >= 0:
        return
    tables = Tables(cls)
    free = data.draw(gpu_sets(cls))
    for count in range(2, size(free) + 1):
        choice = choose(tables, free, count)
        sets = map(gpuset, combinations(positions(free), count))
        equals = [one for one in sets if bus_bandwidth(cls, one) == choice.bus_bandwidth_gbs]
        assert choice.pair_score == max(pair_score(cls, one) for one in equals)


@_LAWS
@given(data=st.data(), cls=machines(most=6))
def test_a_choice_costs_the_same_however_gpus_are_numbered(
    data: st.DataObject, cls: TopologyClass
) -> None:
    """Renumbering a machine changes neither a choice's bandwidth nor its score nor its loss."""
    order = data.draw(st.permutations(range(cls.count)))
    free = data.draw(gpu_sets(cls))
    here, there = Tables(cls), Tables(relabel(cls, order))
    for count in range(1, size(free) + 1):
        one, other = choose(here, free, count), choose(there, relabel_set(free, order), count)
        assert one.bus_bandwidth_gbs == other.bus_bandwidth_gbs
        assert one.pair_score == other.pair_score
        assert one.loss == other.loss


@_LAWS
@given(data=st.data(), count=st.integers(2, 8))
def test_the_search_for_a_ring_agrees_with_the_table(data: st.DataObject, count: int) -> None:
    """Whether a closed ring exists is the same by search and by table, for every set."""
    neighbours = [0] * count
    for i, j in combinations(range(count), 2):
        if data.draw(st.booleans()):
            neighbours[i] |= 1 << j
            neighbours[j] |= 1 << i
    table = all_cycles(tuple(neighbours))
    for mask in range(1 << count):
        assert has_cycle(tuple(neighbours), GpuSet(mask)) == table[mask]


@_LAWS
@given(data=st.data(), count=st.integers(2, 5))
def test_ring_counts_are_those_of_a_plain_search(data: st.DataObject, count: int) -> None:
    """The number of edge-disjoint rings is what trying every packing of every ring finds."""
    cells = [[0] * count for _ in range(count)]
    for i, j in combinations(range(count), 2):
        cells[i][j] = cells[j][i] = data.draw(st.integers(0, 2))
    links = tuple(map(tuple, cells))
    assert count_rings(links) == _count_plainly(links)


def _count_plainly(links: CountMatrix) -> int:
    count = len(links)
    rings = [
        list(zip((0, *order), (*order, 0), strict=True)) for order in permutations(range(1, count))
    ]

    @cache
    def most(first: int, free: CountMatrix) -> int:
        best = 0
        for n in range(first, len(rings)):
            if all(free[i][j] for i, j in rings[n]):
                left = [list(row) for row in free]
                for i, j in rings[n]:
                    left[i][j] -= 1
                best = max(best, 1 + most(n, tuple(map(tuple, left))))
        return best

    return most(0, links)
