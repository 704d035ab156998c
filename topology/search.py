"""Choosing where no table fits: classes of more than 16 GPUs.

A bounded search by the same order. Sets are grown greedily from every possible start in three
ways (near each other; near each other and far from the rest; far apart), the best of them are
improved by swapping single members, and what is left is weighed for the finalists only. Where few
sets are possible at all (``must`` or ``allowed`` leave little), all of them are looked at.

What differs from the tables: V(F) takes the best *grown* set for each size of the mix; where two
losses are equal, the links that are cut off from the rest decide, not the choices that are left.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.choice import Choice, Request, refuse
from topology.demands import near_masks, worst_link
from topology.gpuset import EMPTY, GpuSet, gpuset, positions, size
from topology.model import TopologyClass
from topology.profiles import Criterion, Profile
from topology.quality import bus_bandwidth, pair_score
from topology.tables import Mix, Tables

ENUMERATE: Final = 1_000
"""Up to this many possible sets are all looked at."""

SWAPS: Final = 600
"""How many swapped sets may be looked at."""

FINALISTS: Final = 8
"""For how many sets the loss of what is left is worked out."""

CLIQUE_STEPS: Final = 20_000
"""Steps in search of any set that meets a min-link; undecided counts as none."""

Key = tuple[float, ...]


def choose(
    tables: Tables, profile: Profile, request: Request, *, enumerate_up_to: int = ENUMERATE
) -> Choice:
    """Return the best set found. Raises SelectionError if no set meets the min-link.

    Where at most `enumerate_up_to` sets are possible, all of them are looked at.
    """
    cls = tables.cls
    found = _candidates(cls, request, enumerate_up_to)
    if not found:
        raise refuse(request)
    order = profile.order_for(request.count, switched=tables.switched)
    middle = order.index(Criterion.REST)
    if request.count > 1:
        least = max(bus_bandwidth(cls, one) for one in found) * (1 - profile.tolerance)
        found = [one for one in found if bus_bandwidth(cls, one) >= least]

    def before(members: GpuSet) -> Key:
        return _costs(cls, order[:middle], members)

    first = min(map(before, found))
    finalists = sorted(
        (one for one in found if before(one) == first),
        key=lambda one: (_cut(cls, request.free, one), *positions(one)),
    )[:FINALISTS]

    def whole(members: GpuSet) -> tuple[Key, tuple[int, ...]]:
        rest = GpuSet(request.free ^ members)
        left = (-find_worth(cls, tables.mix, rest), _cut(cls, request.free, members))
        return (*left, *_costs(cls, order[middle + 1 :], members)), tuple(positions(members))

    members = min(finalists, key=whole)
    before_it = find_worth(cls, tables.mix, request.free)
    after_it = find_worth(cls, tables.mix, GpuSet(request.free ^ members))
    return Choice(
        members=members,
        bus_bandwidth_gbs=bus_bandwidth(cls, members),
        pair_score=pair_score(cls, members),
        # Growing may miss among more GPUs what it finds among fewer; nothing is ever gained.
        loss=max(round(before_it - after_it, 9), 0.0),
        worst_link=worst_link(cls, members),
    )


@lru_cache(maxsize=4096)
def find_worth(cls: TopologyClass, mix: Mix, free: GpuSet) -> float:
    """Return what these free GPUs are worth to the mix, by the best grown sets; at most 1."""
    worth = 0.0
    everything = GpuSet((1 << cls.count) - 1)
    for k, share in mix.shares:
        if k > size(free):
            continue
        if k == 1:
            worth += share
            continue
        best = _best_grown(cls, everything, k)
        worth += share * min(_best_grown(cls, free, k) / best, 1.0)
    return round(worth, 9)


@lru_cache(maxsize=4096)
def _best_grown(cls: TopologyClass, free: GpuSet, k: int) -> float:
    everyone = _any_pair(cls)
    return max(bus_bandwidth(cls, one) for one in _grow(cls, free, k, EMPTY, everyone))


def _candidates(cls: TopologyClass, request: Request, enumerate_up_to: int) -> list[GpuSet]:
    """Return possible sets, the promising ones among them, each once, ascending."""
    usable = GpuSet(request.free & request.allowed)
    near = _any_pair(cls) if request.min_link is None else near_masks(cls, request.min_link)
    spare = list(positions(GpuSet(usable & ~request.must)))
    open_places = request.count - size(request.must)
    if not _is_clique(near, request.must):
        return []
    if comb(len(spare), open_places) <= enumerate_up_to:
        sets = (GpuSet(gpuset(more) | request.must) for more in combinations(spare, open_places))
        return sorted(one for one in sets if _is_clique(near, one))
    found: set[GpuSet] = set()
    for inward, outward in ((1.0, 0.0), (1.0, 1.0), (-1.0, 0.0)):
        found |= _grow(
            cls, usable, request.count, request.must, near, inward=inward, outward=outward
        )
    if not found:
        clique = find_clique(near, usable, request.count, request.must)
        found = set() if clique is None else {clique}
    return sorted(found | _swap(cls, request, near, found))


def _grow(
    cls: TopologyClass,
    usable: GpuSet,
    k: int,
    must: GpuSet,
    near: tuple[int, ...],
    *,
    inward: float = 1.0,
    outward: float = 0.0,
) -> set[GpuSet]:
    """Grow a set from each start, always by the GPU that is nearest to it; ties to the lowest.

    `inward` weighs nearness to the set, `outward` that to the usable GPUs that stay behind.
    """
    weights = _nearness(cls)
    where = list(positions(usable))
    to_usable = weights[:, where].sum(axis=1)
    grown: set[GpuSet] = set()
    starts = [must] if must else [gpuset([i]) for i in where]
    for start in starts:
        members = start
        allowed = usable & ~start
        for i in positions(start):
            allowed &= near[i]
        inside = weights[:, list(positions(start))].sum(axis=1)
        while size(members) < k and allowed:
            choices = list(positions(GpuSet(allowed)))
            gain = inward * inside[choices] - outward * (to_usable - inside)[choices]
            i = choices[int(gain.argmax())]
            members = GpuSet(members | 1 << i)
            allowed &= near[i] & ~(1 << i)
            inside = inside + weights[:, i]
        if size(members) == k:
            grown.add(members)
    return grown


def _swap(
    cls: TopologyClass, request: Request, near: tuple[int, ...], found: set[GpuSet]
) -> set[GpuSet]:
    """Improve the fastest sets by exchanging one member at a time, within `SWAPS` looks."""
    looks = SWAPS
    better: set[GpuSet] = set()
    usable = request.free & request.allowed

    def value(members: GpuSet) -> tuple[float, int]:
        return bus_bandwidth(cls, members), pair_score(cls, members)

    for start in sorted(found, key=lambda one: (*(-v for v in value(one)), one))[:4]:
        members, improved = start, True
        while improved and looks > 0:
            improved = False
            exchanges = (
                GpuSet(members ^ 1 << out | 1 << into)
                for out in positions(GpuSet(members & ~request.must))
                for into in positions(GpuSet(usable & ~members))
            )
            for other in exchanges:
                looks -= 1
                if looks <= 0:
                    break
                if _is_clique(near, other) and value(other) > value(members):
                    members, improved = other, True
                    break
        better.add(members)
    return better


def find_clique(near: tuple[int, ...], usable: GpuSet, k: int, must: GpuSet) -> GpuSet | None:
    """Return the first set whose pairs all are near, None if the steps do not find one."""
    allowed = usable & ~must
    for i in positions(must):
        allowed &= near[i]
    stack = [(int(must), int(allowed))]
    for _ in range(CLIQUE_STEPS):
        if not stack:
            return None
        members, open_to = stack.pop()
        if members.bit_count() == k:
            return GpuSet(members)
        if members.bit_count() + open_to.bit_count() < k:
            continue
        low = open_to & -open_to
        stack.append((members, open_to ^ low))
        stack.append((members | low, (open_to ^ low) & near[low.bit_length() - 1]))
    return None


def _is_clique(near: tuple[int, ...], members: GpuSet) -> bool:
    return all(members & ~near[i] == 1 << i for i in positions(members))


def _costs(cls: TopologyClass, criteria: tuple[Criterion, ...], members: GpuSet) -> Key:
    """Return the criteria's values of a set, each smaller where better."""
    return tuple(_cost(cls, criterion, members) for criterion in criteria)


def _cost(cls: TopologyClass, criterion: Criterion, members: GpuSet) -> float:
    match criterion:
        case Criterion.BANDWIDTH:
            return -bus_bandwidth(cls, members)
        case Criterion.PAIR_SCORE:
            return -pair_score(cls, members)
        case Criterion.FAR_APART:
            return pair_score(cls, members)
        case Criterion.FEW_NUMA:
            return len({cls.numa[i] for i in positions(members)})
        case Criterion.MANY_NUMA:
            return -len({cls.numa[i] for i in positions(members)})
        case Criterion.NEAR_NIC:
            return sum(int(cls.nic[i]) for i in positions(members))
        case Criterion.REST:
            return 0.0


def _cut(cls: TopologyClass, free: GpuSet, members: GpuSet) -> float:
    """Return the nearness between the set and what it leaves behind."""
    weights = _nearness(cls)
    rest = list(positions(GpuSet(free ^ members)))
    return round(float(weights[np.ix_(list(positions(members)), rest)].sum()), 6)


@lru_cache(maxsize=64)
def _any_pair(cls: TopologyClass) -> tuple[int, ...]:
    everything = (1 << cls.count) - 1
    return tuple(everything ^ 1 << i for i in range(cls.count))


@lru_cache(maxsize=64)
def _nearness(cls: TopologyClass) -> NDArray[np.float64]:
    """Return, for each pair, its own bus bandwidth with a little for its pair score."""
    weights = np.zeros((cls.count, cls.count))
    for i in range(cls.count):
        for j in range(i):
            pair = gpuset([i, j])
            weights[i, j] = bus_bandwidth(cls, pair) + pair_score(cls, pair) / 1e6
            weights[j, i] = weights[i, j]
    return weights
