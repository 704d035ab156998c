"""How a set is chosen: profiles as data, and the choice.

The order of the default profile, `training`, among the sets that meet the pod's demands:

1. the greatest predicted bus bandwidth (tolerance 0: never below what the reference allocator
   would have chosen);
2. on machines without NVSwitch, for two GPUs or more, the greatest pair score. The reference
   maximises the pair score of a whole partition; taking the greatest of a set among those of
   equal bandwidth is what keeps us from ever being below it there;
3. the least loss of what is left (`topology.tables`), then the most left to choose from;
4. the fewest NUMA nodes, then the nearest NICs;
5. the greatest pair score;
6. the lowest positions.

For one GPU 1 and 2 say nothing, so that 3 keeps linked groups whole. The answer depends on the
set of free GPUs alone, never on the order in which they were listed.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
import numpy as np

from topology import search
from topology.choice import Choice, Request, check_request, refuse
from topology.demands import MinLink, worst_link
from topology.gpuset import EMPTY, GpuSet
from topology.profiles import INFERENCE, PACK, PROFILES, SPREAD, TRAINING, Criterion, Profile
from topology.tables import DEFAULT_MIX, Floats, Ints, Mix, Tables

__all__ = [
    "DEFAULT_MIX",
    "INFERENCE",
    "PACK",
    "PROFILES",
    "SPREAD",
    "TRAINING",
    "Choice",
    "Criterion",
    "Mix",
    "Profile",
    "choose",
]


def choose(
    tables: Tables,
    free: GpuSet,
    k: int,
    *,
    must: GpuSet = EMPTY,
    profile: Profile = TRAINING,
    min_link: MinLink | None = None,
    allowed: GpuSet | None = None,
) -> Choice:
    """Return the best set of `k` of the `free` GPUs by the profile's order.

    The set holds all of `must` and, if `allowed` is given, nothing outside it; no pair is linked
    worse than `min_link`. Raises SelectionError with one line if there is no such set.
    """
    request = Request(
        free=free,
        count=k,
        must=must,
        allowed=tables.everything if allowed is None else allowed,
        min_link=min_link,
    )
    return chooser_for(tables, profile).choose(request)


@lru_cache(maxsize=256)
def chooser_for(tables: Tables, profile: Profile) -> Chooser:
    """Return the chooser of these tables and this profile; the 256 used last are kept."""
    return Chooser(tables, profile)


class Chooser:
    """Choices from one class by one profile. Answers are remembered, the 4,096 used last."""

    def __init__(self, tables: Tables, profile: Profile) -> None:
        self.tables = tables
        self.profile = profile
        self.choose = lru_cache(maxsize=4096)(self._choose)
        self._rankings: dict[tuple[Criterion, ...], Ranking] = {}
        if tables.exact:
            for order in (profile.order, profile.order_without_switch):
                self._rankings[order] = rank(tables, order)
        self._columns: dict[int, ChoiceColumn] = {}

    def _choose(self, request: Request) -> Choice:
        check_request(request, self.tables.everything)
        if not self.tables.exact:
            return search.choose(self.tables, self.profile, request)
        sets = self.tables.candidates(request.count)
        barred = self.tables.everything & ~(request.free & request.allowed)
        possible = sets[(sets & (barred | request.must)) == request.must]
        if request.min_link is not None:
            possible = possible[self.tables.within(request.min_link)[possible]]
            if not len(possible):
                raise refuse(request)
        return self._describe(request.free, self._best(request.free, request.count, possible))

    def _best(self, free: GpuSet, count: int, possible: Ints) -> GpuSet:
        """Return the best of these sets, which stand in the order of their positions."""
        if len(possible) == 1:
            return GpuSet(int(possible[0]))
        tables = self.tables
        order = self.profile.order_for(count, switched=tables.switched)
        if count > 1 and self.profile.tolerance < 1 and order[0] is not Criterion.BANDWIDTH:
            quality = tables.quality[possible]
            possible = possible[quality >= quality.max() * (1 - self.profile.tolerance)]
        ranking = self._rankings[order]
        first = ranking.before[possible] + tables.left_rank[int(free) ^ possible]
        equal = possible[first == first.min()]
        if len(equal) > 1:
            equal = equal[ranking.after[equal].argmin(keepdims=True)]
        return GpuSet(int(equal[0]))

    def _describe(self, free: GpuSet, members: GpuSet) -> Choice:
        tables = self.tables
        loss = tables.worth[free] - tables.worth[free ^ members]
        return Choice(
            members=members,
            bus_bandwidth_gbs=float(tables.quality[members]),
            pair_score=int(tables.pair_scores[members]),
            loss=round(float(loss), 9),
            worst_link=worst_link(tables.cls, members),
        )

    def column(self, count: int) -> ChoiceColumn:
        """Return the choices of `count` GPUs by mask of free GPUs, for whole fleets at once."""
        column = self._columns.get(count)
        if column is None:
            column = self._columns.setdefault(count, ChoiceColumn(self, count))
        return column


class ChoiceColumn:
    """The choices of one request size, by mask of free GPUs; filled as masks are asked for.

    `members[free]` is the set chosen, 0 where there is none; `loss[free]` what it costs;
    `quality[free]` its bus bandwidth in GB/s. Read them only at masks that were filled.
    """

    def __init__(self, chooser: Chooser, count: int) -> None:
        masks = 1 << chooser.tables.count
        self._chooser = chooser
        self._count = count
        self._known = np.bitwise_count(np.arange(masks)) < count
        self.members: Ints = np.zeros(masks, dtype=np.int64)
        self.loss: Floats = np.zeros(masks)
        self.quality: Floats = np.zeros(masks)

    def fill(self, masks: Ints) -> None:
        """Make sure that the choices for these masks of free GPUs are there."""
        missing = masks[~self._known[masks]]
        if not len(missing):
            return
        everything = self._chooser.tables.everything
        for free in np.unique(missing):
            request = Request(
                free=GpuSet(int(free)),
                count=self._count,
                must=EMPTY,
                allowed=everything,
                min_link=None,
            )
            choice = self._chooser.choose(request)
            self.members[free] = choice.members
            self.loss[free] = choice.loss
            self.quality[free] = choice.bus_bandwidth_gbs
            self._known[free] = True


class Ranking(msgspec.Struct, frozen=True):
    """What a set itself says, by mask, smaller is better: criteria before and after REST.

    `before` leaves room below for a rank of what is left.
    """

    before: Ints
    after: Ints


def rank(tables: Tables, order: tuple[Criterion, ...]) -> Ranking:
    """Return the ranking of one order of criteria over all sets of a class."""
    middle = order.index(Criterion.REST)
    room = int(tables.left_rank.max()).bit_length()
    return Ranking(
        before=_pack(tables, order[:middle]) << room,
        after=_pack(tables, order[middle + 1 :]),
    )


def _pack(tables: Tables, criteria: tuple[Criterion, ...]) -> Ints:
    """Pack the criteria's values, the first highest; each is at least 0 and smaller is better."""
    packed = np.zeros(1 << tables.count, dtype=np.int64)
    for criterion in criteria:
        values = _cost(tables, criterion)
        packed = packed << int(values.max()).bit_length() | values
    return packed


def _cost(tables: Tables, criterion: Criterion) -> Ints:
    scores, nodes = tables.pair_scores, tables.numa_counts
    match criterion:
        case Criterion.BANDWIDTH:
            return tables.quality_rank
        case Criterion.PAIR_SCORE:
            return _below(scores)
        case Criterion.FAR_APART:
            return scores
        case Criterion.FEW_NUMA:
            return nodes
        case Criterion.MANY_NUMA:
            return _below(nodes)
        case Criterion.NEAR_NIC:
            return tables.nic_distances
        case Criterion.REST:
            return tables.left_rank


def _below(values: Ints) -> Ints:
    """Turn larger-is-better into smaller-is-better."""
    turned: Ints = values.max() - values
    return turned
