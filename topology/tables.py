"""Everything that can be known of a class in advance, as arrays over all masks of its GPUs.

A mask is an index: `quality[members]` is the predicted bus bandwidth of exactly that set,
`best(k)[free]` the best one that `k` of the free GPUs give. Up to 16 GPUs (65,536 masks) all of
it is built at once; larger classes are searched (`topology.search`).

What free GPUs F are worth to the pods to come is V(F): the sum over request sizes k of p_k times
the best quality obtainable in F for k, over the class's best; p is the mix of sizes asked for.
The loss of a set S is V(F) - V(F without S), the fragmentation of links that it causes. Where two
losses are equal, V with pair scores as decimals decides, so that tight groups stay whole; then
the sets that are left to choose from: the same sum over the quality of *all* k-subsets.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from topology.cycles import all_cycles, masks_by_size
from topology.demands import MinLink, pair_link
from topology.errors import SelectionError
from topology.gpuset import GpuSet
from topology.links import Level
from topology.model import TopologyClass
from topology.quality import (
    EXACT_MESH,
    link_counts,
    mesh_of,
    nvlink_neighbours,
    pcie_neighbours,
    port_counts,
    ring_count,
    score_pair,
)
from topology.rates import NVLS_GAIN, nvlink_rate, nvls_gain, pcie_rate

TABLE_GPUS: Final = 16
"""Classes of more GPUs have no tables: their masks would not fit."""

_SCORE_SHARE: Final = 1e-9
"""What a pair score adds to a quality: below half of its last digit, 0.001 GB/s, at 16 GPUs."""

_NO_PAIR: Final = 127
"""A rank above that of any link."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Mix(msgspec.Struct, frozen=True):
    """How the pods to come share the GPUs: (request size, weight), weights above 0.

    Raises SelectionError for a size below 1, a size named twice or a weight that is not positive.
    """

    shares: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.shares]
        if not sizes or len(set(sizes)) != len(sizes):
            raise SelectionError("mix: every request size is named once, at least one")
        for size, weight in self.shares:
            if size < 1 or not 0 < weight < float("inf"):
                raise SelectionError(f"mix: size {size} with weight {weight}")


DEFAULT_MIX: Final = Mix(shares=((1, 0.73), (2, 0.02), (4, 0.04), (8, 0.21)))
"""Whole GPUs by request size in openb's `multigpu20` list: 3911, 54, 52 and 141 pods of 1, 2, 4
and 8 GPUs ask for 73, 2, 4 and 21 % of the GPUs. Until a cluster has shown its own mix."""


class Tables:
    """The arrays of one class.

    `exact` is False above 16 GPUs: then none of the arrays is there. By mask: `sizes`, `quality`
    in GB/s, `pair_scores`, `worth` (V) and `choices` of these GPUs when they are free, and
    `left_rank`, 0 for what is best to be left.
    """

    def __init__(self, cls: TopologyClass, mix: Mix = DEFAULT_MIX) -> None:
        self.cls = cls
        self.mix = mix
        self.count = cls.count
        self.everything = GpuSet((1 << cls.count) - 1)
        self.exact = cls.count <= TABLE_GPUS
        self.switched = any(group >= 0 for group in cls.switch)
        if self.exact:
            self._build()

    def _build(self) -> None:
        self.sizes: Ints = np.bitwise_count(np.arange(1 << self.count)).astype(np.int64)
        self.quality: Floats = build_quality(self.cls)
        shares = [(k, p) for k, p in self.mix.shares if k <= self.count]
        self.pair_scores: Ints = _pair_scores(self.cls)
        worth = np.zeros(1 << self.count)
        tightness = np.zeros(1 << self.count)
        choices = np.zeros(1 << self.count)
        for k, p in shares:
            if k == 1:
                worth += p * (self.sizes > 0)
                choices += p * self.sizes / self.count
                continue
            best = self.best(k)
            worth += p * best / best[-1]
            scored = self.quality + self.pair_scores * _SCORE_SHARE
            tight = _spread_max(np.where(self.sizes == k, scored, 0.0))
            tightness += p * tight / tight[-1]
            total = self.total(k)
            choices += p * total / total[-1]
        # Sums in another order of bits may differ in the last digit; equal means equal.
        self.worth: Floats = np.round(worth, 9)
        self.choices: Floats = np.round(choices, 9)
        self.left_rank: Ints = _rank(self.worth, np.round(tightness, 14), self.choices)
        _freeze(self.sizes, self.quality, self.worth, self.choices, self.left_rank)
        self._worst_ranks = _worst_ranks(self.cls)
        _freeze(self.pair_scores, self._worst_ranks)
        for k in range(self.count + 1):
            _sets_in_order(self.count, k)

    def best(self, k: int) -> Floats:
        """Return, by mask of free GPUs, the best bus bandwidth of `k` of them, 0.0 if none."""
        return _spread_max(np.where(self.sizes == k, self.quality, 0.0))

    def total(self, k: int) -> Floats:
        """Return, by mask of free GPUs, the sum of the quality of all their subsets of size k."""
        return _spread_sum(np.where(self.sizes == k, self.quality, 0.0))

    def candidates(self, k: int) -> Ints:
        """Return all sets of size `k` in the order of their positions: 0,1 0,2 .. 1,2 .."""
        return _sets_in_order(self.count, k)

    @cached_property
    def quality_rank(self) -> Ints:
        """By mask: 0 for the class's best quality of all sets, larger is worse."""
        values, inverse = np.unique(self.quality, return_inverse=True)
        return (len(values) - 1 - inverse).astype(np.int64)

    @cached_property
    def numa_counts(self) -> Ints:
        """By mask: how many NUMA nodes its GPUs lie on; unknown counts as one more."""
        counts = np.zeros(1 << self.count, dtype=np.int64)
        masks = np.arange(1 << self.count)
        for node in set(self.cls.numa):
            there = sum(1 << i for i, numa in enumerate(self.cls.numa) if numa == node)
            counts += (masks & there) != 0
        return counts

    @cached_property
    def nic_distances(self) -> Ints:
        """By mask: the sum of its GPUs' levels to their nearest NIC."""
        return _sum_members([int(level) for level in self.cls.nic])

    def worst_link(self, members: GpuSet) -> MinLink | None:
        """Return the link of the worst pair, None for fewer than two GPUs."""
        return _link_of_rank(int(self._worst_ranks[members]))

    def within(self, demand: MinLink) -> NDArray[np.bool_]:
        """Return, by mask, whether all its pairs meet the demand."""
        fine: NDArray[np.bool_] = self._worst_ranks >= demand.rank
        return fine


def tables_for(cls: TopologyClass, mix: Mix = DEFAULT_MIX) -> Tables:
    """Return the class's tables, built at the first call; the 64 used last are kept."""
    return _tables_for(cls, mix)


@lru_cache(maxsize=64)
def _tables_for(cls: TopologyClass, mix: Mix) -> Tables:
    return Tables(cls, mix)


@lru_cache(maxsize=(TABLE_GPUS + 1) ** 2)
def _sets_in_order(count: int, k: int) -> Ints:
    sets = masks_by_size(count)[k]
    mirrored = np.zeros(len(sets), dtype=np.int64)
    for i in range(count):
        mirrored |= (sets >> i & 1) << (count - 1 - i)
    ordered = sets[np.argsort(-mirrored)]
    _freeze(ordered)
    return ordered


def _worst_ranks(cls: TopologyClass) -> NDArray[np.int8]:
    """By mask: the rank of the worst pair's link, `_NO_PAIR` for fewer than two GPUs."""
    worst = np.full(1 << cls.count, _NO_PAIR, dtype=np.int8)
    for i in range(cls.count):
        row = np.full(1 << i, _NO_PAIR, dtype=np.int8)
        for j in range(i):
            row[1 << j : 2 << j] = np.minimum(row[: 1 << j], pair_link(cls, i, j).rank)
        worst[1 << i : 2 << i] = np.minimum(worst[: 1 << i], row)
    return worst


def _link_of_rank(rank: int) -> MinLink | None:
    if rank == _NO_PAIR:
        return None
    if rank > 0:
        return MinLink(level=Level.SELF, nvlinks=rank)
    return MinLink(level=Level(-rank))


def build_quality(cls: TopologyClass) -> Floats:
    """Return the predicted bus bandwidth of every set: `quality.bus_bandwidth` for all masks."""
    count = cls.count
    masks = np.arange(1 << count)
    sizes = np.bitwise_count(masks)
    switch = _switch_bandwidth(cls, sizes)
    several = sizes >= 2
    quality = np.where(several, np.maximum(_pcie_bandwidth(cls), switch), 0.0)
    if any(map(any, cls.nvlinks)):
        rings = _ring_counts(cls, several & (switch == 0))
        rates = [nvlink_rate([compute], switched=False) for compute in cls.compute]
        quality = np.maximum(quality, rings * _fold_members(np.minimum, rates, 0.0))
    # The few distinct values are rounded as the scalar rule rounds them, digit for digit.
    values, inverse = np.unique(quality, return_inverse=True)
    return np.array([round(float(value), 3) for value in values])[inverse]


def _pcie_bandwidth(cls: TopologyClass) -> Floats:
    worst = np.full(1 << cls.count, int(Level.SYS))
    for level in (Level.NODE, Level.PHB, Level.PXB, Level.PIX):
        worst[all_cycles(pcie_neighbours(cls, level))] = int(level)
    generations = [pcie_rate([gen], Level.PIX) for gen in cls.pcie_gen]
    ranks = {rate: rank for rank, rate in enumerate(sorted(set(generations)))}
    oldest = {ranks[rate]: gen for rate, gen in zip(generations, cls.pcie_gen, strict=True)}
    rates = np.array(
        [
            [pcie_rate([oldest[rank]], max(level, Level.PIX)) for level in Level]
            for rank in range(len(ranks))
        ]
    )
    if not ranks:
        return np.zeros(1)
    slowest = _fold_members(np.minimum, [ranks[rate] for rate in generations], 0)
    result: Floats = rates[slowest.astype(np.int64), worst]
    return result


def _switch_bandwidth(cls: TopologyClass, sizes: NDArray[np.uint8]) -> Floats:
    """By mask: the bandwidth of sets that share one switch group, 0.0 for the others."""
    carried = np.zeros(1 << cls.count)
    if all(group < 0 for group in cls.switch):
        return carried
    links = np.full(1 << cls.count, np.inf)
    for i in range(cls.count):
        row = np.full(1 << i, np.inf)
        for j in range(i):
            shared = cls.switch[i] >= 0 and cls.switch[i] == cls.switch[j]
            cell = cls.nvlinks[i][j] if shared else 0
            row[1 << j : 2 << j] = np.minimum(row[: 1 << j], cell)
        links[1 << i : 2 << i] = np.minimum(links[: 1 << i], row)
    rates = [nvlink_rate([compute], switched=True) for compute in cls.compute]
    together = (sizes >= 2) & (links > 0)
    gains = np.ones(1 << cls.count)
    if any(compute.partition(".")[0] in NVLS_GAIN for compute in cls.compute):
        gains = _nvls_gains(cls, sizes)
    rate = _fold_members(np.minimum, rates, 0.0)
    carried[together] = links[together] * rate[together] * gains[together]
    return carried


def _nvls_gains(cls: TopologyClass, sizes: NDArray[np.uint8]) -> Floats:
    gains = np.full(1 << cls.count, np.inf)
    masks = np.arange(1 << cls.count)
    for compute in set(cls.compute):
        there = sum(1 << i for i, one in enumerate(cls.compute) if one == compute)
        by_size = np.array([nvls_gain([compute], size) for size in range(cls.count + 1)])
        gains = np.where(masks & there, np.minimum(gains, by_size[sizes]), gains)
    return gains


def _ring_counts(cls: TopologyClass, wanted: NDArray[np.bool_]) -> Ints:
    """By mask: the number of NVLink rings, where wanted."""
    rings = np.zeros(1 << cls.count, dtype=np.int64)
    exact = np.zeros(1 << cls.count, dtype=np.bool_)
    masks = np.arange(1 << cls.count)
    for mesh in {mesh_of(cls, i) for i in range(cls.count)}:
        if mesh.bit_count() <= EXACT_MESH:
            exact |= masks & ~mesh == 0
    exact |= np.bitwise_count(masks) == 2
    closed = all_cycles(nvlink_neighbours(cls, 1)) & wanted
    for members in np.flatnonzero(closed & exact):
        rings[members] = ring_count(cls, GpuSet(int(members)))
    rest = closed & ~exact
    if rest.any():
        for links in reversed(link_counts(cls)):
            rings[all_cycles(nvlink_neighbours(cls, links)) & rest] = 2 * links
        ports = _fold_members(np.minimum, list(port_counts(cls)), 0)
        rings[rest] = np.minimum(rings[rest], ports[rest].astype(np.int64))
    return rings


def _fold_members(fold: np.ufunc, values: list[float] | list[int], empty: float) -> Floats:
    """By mask: the fold of its members' values, `empty` for no member."""
    folded = np.full(1 << len(values), empty, dtype=np.float64)
    for i, value in enumerate(values):
        folded[1 << i] = value
        folded[(1 << i) + 1 : 2 << i] = fold(folded[1 : 1 << i], value)
    return folded


def _sum_members(values: list[int]) -> Ints:
    total = np.zeros(1 << len(values), dtype=np.int64)
    for i, value in enumerate(values):
        total[1 << i : 2 << i] = total[: 1 << i] + value
    return total


def _spread_max(values: Floats) -> Floats:
    """By mask: the greatest value of any of its subsets; `values` is overwritten."""
    step = 1
    while step < len(values):
        halves = values.reshape(-1, 2, step)
        np.maximum(halves[:, 1], halves[:, 0], out=halves[:, 1])
        step *= 2
    return values


def _spread_sum(values: Floats) -> Floats:
    """By mask: the sum of the values of all its subsets; `values` is overwritten."""
    step = 1
    while step < len(values):
        halves = values.reshape(-1, 2, step)
        halves[:, 1] += halves[:, 0]
        step *= 2
    return values


def _rank(*measures: Floats) -> Ints:
    """Rank by the first measure, then the next: 0 is the largest, all equal share a rank."""
    ranks: Ints = np.zeros(len(measures[0]), dtype=np.int64)
    for measure in measures:
        values = np.unique(measure, return_inverse=True)[1].astype(np.int64)
        ranks = ranks * (int(values.max()) + 1) + values
        ranks = np.unique(ranks, return_inverse=True)[1].astype(np.int64)
    below: Ints = ranks.max() - ranks
    return below


def _pair_scores(cls: TopologyClass) -> Ints:
    """By mask: the reference allocator's score."""
    scores = np.zeros(1 << cls.count, dtype=np.int64)
    for i in range(cls.count):
        row = np.zeros(1 << i, dtype=np.int64)
        for j in range(i):
            row[1 << j : 2 << j] = row[: 1 << j] + score_pair(cls, i, j)
        scores[1 << i : 2 << i] = scores[: 1 << i] + row
    return scores


def _freeze(*arrays: NDArray[np.generic]) -> None:
    for array in arrays:
        array.setflags(write=False)
