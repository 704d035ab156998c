"""Which sets the free GPUs of a node give, by size and by link. Pure; remembered by free set."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from topology.demands import MinLink
from topology.errors import SelectionError
from topology.gpuset import GpuSet, size
from topology.links import Level
from topology.policies import choose
from topology.tables import Tables

LEVELS: Final = {
    "NV": MinLink(Level.SELF, 1),
    "PIX": MinLink(Level.PIX),
    "PXB": MinLink(Level.PXB),
    "PHB": MinLink(Level.PHB),
    "NODE": MinLink(Level.NODE),
    "SYS": MinLink(Level.SYS),
}
"""What a set's worst pair may be, the nearest first."""


class Obtainable(msgspec.Struct, frozen=True):
    """What a free set gives.

    `bandwidths[k - 1]` is the best bus bandwidth of k GPUs in GB/s, `largest` the size of the
    largest set by level. `link_loss` is how much lower these bandwidths are than the whole
    machine's, over the sizes that still fit, weighed by the workload's mix; 0 to 1.
    """

    bandwidths: tuple[float, ...]
    largest: dict[str, int]
    link_loss: float


@lru_cache(maxsize=8192)
def obtainable(tables: Tables, free: GpuSet) -> Obtainable:
    """Look at every set of the free GPUs; 1 ms for 16 of them, the first time."""
    count = size(free)
    if not count:
        return Obtainable((), dict.fromkeys(LEVELS, 0), 0.0)
    if not tables.exact:
        return _search(tables, free)
    best = _best(tables, free)
    whole = _best(tables, tables.everything)
    masks = np.arange(1 << tables.count)
    inside = (masks & ~int(free)) == 0
    largest = {
        name: int(tables.sizes[inside & tables.within(level)].max(initial=0))
        for name, level in LEVELS.items()
    }
    had = might = 0.0
    for k, weight in tables.mix.shares:
        # One GPU has no links to lose.
        if 1 < k <= count and whole[k - 1] > 0:
            had += weight * best[k - 1]
            might += weight * whole[k - 1]
    return Obtainable(best, largest, 1 - had / might if might else 0.0)


def _best(tables: Tables, free: GpuSet) -> tuple[float, ...]:
    """Return the best bandwidth of each size."""
    masks = np.arange(1 << tables.count)
    inside = (masks & ~int(free)) == 0
    best = np.zeros(tables.count + 1)
    np.maximum.at(best, tables.sizes[inside], tables.quality[inside])
    return tuple(best[1 : size(free) + 1].tolist())


def _search(tables: Tables, free: GpuSet) -> Obtainable:
    """Do the same where a machine is too large for tables; these are switched throughout."""
    bandwidths = tuple(choose(tables, free, k).bus_bandwidth_gbs for k in range(1, size(free) + 1))
    largest = {}
    for name, level in LEVELS.items():
        fitting = 0
        for k in range(size(free), 0, -1):
            try:
                choose(tables, free, k, min_link=level)
            except SelectionError:
                continue
            fitting = k
            break
        largest[name] = fitting
    return Obtainable(bandwidths, largest, 0.0)
