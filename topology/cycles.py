"""Does a closed ring through exactly these GPUs exist? For one set, and for all sets at once.

`neighbours[i]` is the mask of GPUs that may stand next to GPU i on the ring. Two neighbours make
a ring by themselves: each link runs both ways.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from topology.gpuset import GpuSet, positions

STEP_BUDGET: Final = 1_000
"""Steps of one search, a few milliseconds. Sets of up to 16 GPUs that need more are settled
exactly, by table."""

EXACT_COUNT: Final = 16


def has_cycle(neighbours: tuple[int, ...], members: GpuSet) -> bool:
    """Return whether a closed ring runs through exactly the members.

    Exact up to 16 members. Above, an undecided search of `STEP_BUDGET` steps counts as no.
    """
    where = tuple(positions(members))
    if len(where) < 2:
        return False
    mask = int(members)
    if len(where) == 2:
        return bool(neighbours[where[0]] >> where[1] & 1)
    if any((neighbours[i] & mask).bit_count() < 2 for i in where):
        return False
    if not _connected(neighbours, mask):
        return False
    search = _Search(neighbours, where[0])
    if search.walk(where[0], mask & ~(1 << where[0])):
        return True
    if search.steps > 0 or len(where) > EXACT_COUNT:
        return False
    return bool(all_cycles(_restrict(neighbours, where))[-1])


def _restrict(neighbours: tuple[int, ...], where: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sum((neighbours[i] >> j & 1) << n for n, j in enumerate(where)) for i in where)


def _connected(neighbours: tuple[int, ...], mask: int) -> bool:
    seen = front = mask & -mask
    while front:
        grown = 0
        for i in positions(GpuSet(front)):
            grown |= neighbours[i]
        front = grown & mask & ~seen
        seen |= front
    return seen == mask


class _Search:
    """A depth-first ring from `start`, tightest neighbour first."""

    def __init__(self, neighbours: tuple[int, ...], start: int) -> None:
        self.neighbours = neighbours
        self.start = start
        self.steps = STEP_BUDGET

    def walk(self, here: int, left: int) -> bool:
        """Whether the path that ends `here` can be closed through exactly `left`."""
        if not left:
            return bool(self.neighbours[here] >> self.start & 1)
        if self.steps <= 0:
            return False
        self.steps -= 1
        usable = left | 1 << self.start | 1 << here
        for i in positions(GpuSet(left)):
            if (self.neighbours[i] & usable).bit_count() < 2:
                return False
        nexts = sorted(
            positions(GpuSet(self.neighbours[here] & left)),
            key=lambda i: ((self.neighbours[i] & left).bit_count(), i),
        )
        return any(self.walk(there, left & ~(1 << there)) for there in nexts)


@lru_cache(maxsize=EXACT_COUNT + 1)
def masks_by_size(count: int) -> tuple[NDArray[np.int64], ...]:
    """Return, for each size, all masks of that size over `count` GPUs, ascending."""
    masks = np.arange(1 << count, dtype=np.int64)
    sizes = np.bitwise_count(masks)
    by_size = tuple(masks[sizes == size] for size in range(count + 1))
    for group in by_size:
        group.setflags(write=False)
    return by_size


def all_cycles(neighbours: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return, for every mask of up to 16 GPUs, whether a closed ring runs through exactly it.

    For each mask the DP keeps the set of GPUs in which a path through the whole mask can end that
    starts at its lowest GPU; the ring closes if such an end neighbours the start.
    """
    count = len(neighbours)
    ends = np.zeros(1 << count, dtype=np.int64)
    closed = np.zeros(1 << count, dtype=np.bool_)
    ends[1 << np.arange(count)] = 1 << np.arange(count)
    of_start = np.zeros(1 << count, dtype=np.int64)
    for i in range(count):
        of_start[1 << i] = neighbours[i]
    for masks in masks_by_size(count)[2:]:
        start = masks & -masks
        reached = np.zeros(len(masks), dtype=np.int64)
        for i in range(1, count):
            bit = 1 << i
            inside = np.flatnonzero((masks & bit != 0) & (start != bit))
            before = ends[masks[inside] ^ bit]
            reached[inside] |= np.where(before & neighbours[i] != 0, bit, 0)
        ends[masks] = reached
        closed[masks] = reached & of_start[start] != 0
    return closed
