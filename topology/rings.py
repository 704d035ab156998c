"""Counting NVLink rings: how many can run at once without sharing a link's direction.

NCCL builds its channels from directed rings; each NVLink carries one ring in each direction.
The greatest number of edge-disjoint directed rings through exactly the members is therefore what
a mesh or a bridge can use. Finding it is an exact search with two upper bounds; a deterministic
budget of steps bounds it, and then the best packing found counts.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Final

from topology.cycles import has_cycle
from topology.gpuset import full_set
from topology.model import CountMatrix

STEP_BUDGET: Final = 10_000
"""Steps for one set, about 10 ms. Boards that exist need a few hundred; a complete mesh of eight
GPUs with random link counts, which does not, still has its tables within a second."""


def count_rings(links: CountMatrix) -> int:
    """Return the greatest number of edge-disjoint directed rings through all GPUs of `links`.

    `links` is the members' own NVLink matrix. Two GPUs: the number of their links. Fewer than
    two: 0.

    >>> count_rings(((0, 4), (4, 0)))
    4
    >>> count_rings(((0, 2, 1), (2, 0, 1), (1, 1, 0)))
    2
    """
    count = len(links)
    if count < 2:
        return 0
    if count == 2:
        return links[0][1]
    neighbours = tuple(sum(1 << j for j, cell in enumerate(row) if cell) for row in links)
    if not has_cycle(neighbours, full_set(count)):
        return 0
    return _count_canonical(_reorder(links))


def _reorder(links: CountMatrix) -> CountMatrix:
    """Relabel so that equal meshes mostly meet in the cache; fewest links first."""
    rows = [tuple(sorted(row)) for row in links]
    ranks = [sorted(set(rows)).index(row) for row in rows]
    for _ in range(2):
        seen = [
            (rank, tuple(sorted(zip(row, ranks, strict=True))))
            for rank, row in zip(ranks, links, strict=True)
        ]
        ranks = [sorted(set(seen)).index(one) for one in seen]
    placed: list[int] = []
    rest = list(range(len(links)))
    while rest:
        # Of GPUs that look alike, the one that is linked most to those placed before is next.
        best = min(rest, key=lambda i: (sum(links[i]), ranks[i], [-links[i][j] for j in placed]))
        placed.append(best)
        rest.remove(best)
    return tuple(tuple(links[i][j] for j in placed) for i in placed)


@lru_cache(maxsize=1 << 16)
def _count_canonical(links: CountMatrix) -> int:
    bound = upper_bound(links)
    divisor = gcd(*(cell for row in links for cell in row))
    found = 0
    if divisor > 1:
        part = tuple(tuple(cell // divisor for cell in row) for row in links)
        found = divisor * _count_canonical(part)
    budget = STEP_BUDGET
    while found < bound:
        search = _Search(links, found + 1, budget)
        if not search.pack(search.target):
            break
        found += 1
        budget = max(search.steps, 0)
    return found


def upper_bound(links: CountMatrix) -> int:
    """Return a number of rings that cannot be exceeded: the smallest cut of the mesh.

    Every ring leaves every proper part of the GPUs at least once.
    """
    count = len(links)
    bound = min(map(sum, links))
    for part in range(1, 1 << (count - 1)):
        inside = [i for i in range(count) if part >> i & 1]
        outside = [i for i in range(count) if not part >> i & 1]
        bound = min(bound, sum(links[i][j] for i in inside for j in outside))
    return bound


class _Search:
    """A depth-first packing of `target` rings; rings are taken in lexicographic order."""

    def __init__(self, links: CountMatrix, target: int, steps: int) -> None:
        self.count = len(links)
        self.target = target
        self.steps = steps
        self.free = [list(row) for row in links]
        self.out = [sum(row) for row in links]
        self.into = [sum(row) for row in links]

    def pack(self, left: int, floor: tuple[int, ...] = ()) -> bool:
        """Whether `left` more rings fit, none smaller than `floor`."""
        if left == 0:
            return True
        if min(self.out) < left or min(self.into) < left:
            return False
        return self._walk([0], 1, left, floor, tight=bool(floor))

    def _walk(
        self, path: list[int], seen: int, left: int, floor: tuple[int, ...], *, tight: bool
    ) -> bool:
        if self.steps <= 0:
            return False
        self.steps -= 1
        here = path[-1]
        row = self.free[here]
        if len(path) == self.count:
            return bool(row[0]) and self._close(path, left)
        depth = len(path)
        first = floor[depth] if tight else 1
        for there in range(first, self.count):
            if row[there] and not seen >> there & 1:
                path.append(there)
                if self._walk(path, seen | 1 << there, left, floor, tight=tight and there == first):
                    return True
                path.pop()
        return False

    def _close(self, path: list[int], left: int) -> bool:
        ring = tuple(path)
        for here, there in zip(ring, (*ring[1:], ring[0]), strict=True):
            self.free[here][there] -= 1
            self.out[here] -= 1
            self.into[there] -= 1
        if self.pack(left - 1, ring):
            return True
        for here, there in zip(ring, (*ring[1:], ring[0]), strict=True):
            self.free[here][there] += 1
            self.out[here] += 1
            self.into[there] += 1
        return False
