"""The reference allocator's published best-effort rule, to compare with: an oracle.

It pads the available GPUs up to a multiple of the size, walks all partitions into sets of that
size in which one set holds none or all of the padding, keeps the first partition of the highest
total score that has an unpadded set with all required GPUs, and returns the highest scoring set of
it that holds them. The rule is kept, faults included (a padded set may win: fewer GPUs than asked
for); the walk is replaced by a table over masks, so that every mask and size can be asked.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

from topology.gpuset import EMPTY, GpuSet, gpuset, positions, size
from topology.links import PAIR_SCORE_OF_LEVEL
from topology.model import TopologyClass
from topology.quality import score_pair

Partition = tuple[int, tuple[GpuSet, ...]]
_NONE: Partition = (-1, ())


class ReferenceAllocator:
    """The rule on one machine, the GPUs listed in ascending order."""

    def __init__(self, cls: TopologyClass) -> None:
        self._pairs = [
            [0 if i == j else _score(cls, i, j) for j in range(cls.count)] for i in range(cls.count)
        ]
        self._score = cache(self._sum_pairs)
        self._best = cache(self._best_partition)

    def allocate(self, free: GpuSet, count: int, required: GpuSet = EMPTY) -> GpuSet:
        """Return the reference's choice; the empty set where it gives none."""
        if count <= 0 or count > size(free) or size(required) > count or required & ~free:
            return EMPTY
        _, partition = self._best(free, count, required)
        holding = [members for members in partition if members & required == required]
        return max(holding, key=self._score, default=EMPTY)

    def score(self, members: GpuSet) -> int:
        """Return the score of a set as the reference counts it."""
        return self._score(members)

    def _sum_pairs(self, members: GpuSet) -> int:
        return sum(self._pairs[i][j] for i, j in combinations(positions(members), 2))

    def _best_partition(self, left: GpuSet, count: int, required: GpuSet) -> Partition:
        """Return the first best partition of what is left; `required` is EMPTY once it is met."""
        if not left:
            return (0, ()) if not required else _NONE
        best = _NONE
        for members in _heads(left, count):
            met = size(members) == count and members & required == required
            if required & members and not met:
                continue
            rest = GpuSet(left ^ members)
            total, sets = self._best(rest, count, EMPTY if met else required)
            if total < 0:
                continue
            total += self._score(members)
            if total > best[0]:
                best = (total, (members, *sets))
        return best


def _score(cls: TopologyClass, one: int, other: int) -> int:
    """Score a pair as the reference does: NVLinks whose far end is a switch are not seen."""
    if cls.switch[one] >= 0 and cls.switch[one] == cls.switch[other]:
        return PAIR_SCORE_OF_LEVEL[cls.pcie[one][other]]
    return score_pair(cls, one, other)


@cache
def _heads(left: GpuSet, count: int) -> tuple[GpuSet, ...]:
    """Return the sets that the first GPU left can head, in the reference's order."""
    head, *others = positions(left)
    short = size(left) % count
    pad = 99
    combos = [(head, *combo) for combo in combinations(others, count - 1)]
    if short:
        combos += [
            (head, *combo, *[pad] * (count - short)) for combo in combinations(others, short - 1)
        ]
    return tuple(gpuset(i for i in combo if i != pad) for combo in sorted(combos))
