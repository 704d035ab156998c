"""How a set is chosen: profiles as data, and the choice.

The order of the default profile, `training`, among the sets that meet the pod's demands:

1. the greatest predicted bus bandwidth (tolerance 0: never below what the reference allocator
   would have chosen);
2. on machines without NVSwitch, for two GPUs or more, the greatest pair score. The reference
   maximises the pair score of a whole partition; taking the greatest of a set among those of
   equal bandwidth is what keeps us from ever being below it there;
3. the least loss of what is left, then the tightest groups left, then the most left to choose
   from (`topology.tables`);
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
from topology.demands import MinLink
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
        self._rankings: list[Ranking] = []
        if tables.exact:
            self._rankings = _rank_all(tables, profile)
        self._columns: dict[int, ChoiceColumn] = {}

    def _choose(self, request: Request) -> Choice:
        check_request(request, self.tables.everything)
        if not self.tables.exact:
            return search.choose(self.tables, self.profile, request)
        tables = self.tables
        ranking = self._rankings[request.count]
        barred = tables.everything & ~(request.free & request.allowed)
        possible = (ranking.sets & (barred | request.must)) == request.must
        if request.min_link is not None:
            possible &= tables.within(request.min_link)[ranking.sets]
            if not possible.any():
                raise refuse(request)
        if ranking.slack < 1:
            least = ranking.quality[possible].max() * (1 - ranking.slack)
            possible &= ranking.quality >= least
        # The best by the criteria before REST stand first; among their equals REST decides, and
        # of equals in that the first is the best by the criteria after it.
        first = int(possible.argmax())
        last = int(np.searchsorted(ranking.before, ranking.before[first], side="right"))
        equal = ranking.sets[first:last][possible[first:last]]
        best = equal[tables.left_rank[int(request.free) ^ equal].argmin()]
        return self._describe(request.free, GpuSet(int(best)))

    def _describe(self, free: GpuSet, members: GpuSet) -> Choice:
        tables = self.tables
        loss = tables.worth[free] - tables.worth[free ^ members]
        return Choice(
            members=members,
            bus_bandwidth_gbs=float(tables.quality[members]),
            pair_score=int(tables.pair_scores[members]),
            loss=round(float(loss), 9),
            worst_link=tables.worst_link(members),
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
    """All sets of one size in a profile's order, what is left aside.

    `sets` are sorted by the criteria before REST, then those after it, then positions; `before`
    holds a number for the former, equal where all of them are. `quality` stands in the same
    order. `slack` is the tolerance that is still to be applied; 1 for none.
    """

    sets: Ints
    before: Ints
    quality: Floats
    slack: float


def _rank_all(tables: Tables, profile: Profile) -> list[Ranking]:
    """Return the rankings of all sizes."""
    packed = {
        order: _pack_around_rest(tables, order)
        for order in (profile.order, profile.order_without_switch)
    }
    rankings = []
    for count in range(tables.count + 1):
        order = profile.order_for(count, switched=tables.switched)
        before, after = packed[order]
        sets = tables.candidates(count)
        sets = sets[np.lexsort((after[sets], before[sets]))]
        best_come_first = order[0] is Criterion.BANDWIDTH and profile.tolerance == 0
        rankings.append(
            Ranking(
                sets=sets,
                before=before[sets],
                quality=tables.quality[sets],
                slack=1.0 if best_come_first or count < 2 else profile.tolerance,
            )
        )
    return rankings


def _pack_around_rest(tables: Tables, order: tuple[Criterion, ...]) -> tuple[Ints, Ints]:
    """Return, by mask, the criteria before REST and those after it, smaller is better."""
    middle = order.index(Criterion.REST)
    return _pack(tables, order[:middle]), _pack(tables, order[middle + 1 :])


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
