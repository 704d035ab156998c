"""What a pod waits for: on which nodes a set would do, and whose GPUs are in the way. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.columns import Hardware, NodeFacts
from scheduler.engine.request import Demand
from scheduler.engine.sets import allowed_set
from topology.gpuset import GpuSet, size
from topology.tables import Tables

NODES_SHOWN: Final = 3
"""Nodes that are told, the ones with the fewest pods in the way."""

NODES_TRIED: Final = 64
"""Nodes that are looked at closely, those with the most free GPUs."""

SETS_TRIED: Final = 60_000
"""Sets that are looked at on all of them: 0.2 us each. 8 GPUs have 70 of 4, 16 have 12,870 of 8."""


class Way(msgspec.Struct, frozen=True):
    """A set that would do on a node, and the GPUs of it that are not free."""

    node: str
    members: GpuSet
    missing: GpuSet
    holders: tuple[str, ...]
    bus_bandwidth_gbs: float


class Site(msgspec.Struct, frozen=True):
    """A node that is looked at: `held` maps who holds GPUs to which, `free` are free now."""

    node: str
    facts: NodeFacts
    free: GpuSet
    held: Mapping[str, GpuSet]


def closest_ways(
    sites: Iterable[Site], demand: Demand, tables: Mapping[Hardware, Tables]
) -> list[Way]:
    """Return the ways that need the fewest pods to go, then the fewest GPUs.

    Only whole GPUs of machines with tables are looked at, and no GPU that is broken.
    """
    ways = []
    tried = 0
    for site in sites:
        hardware = site.facts.hardware
        if hardware is None or site.facts.held_back:
            continue
        if tried > SETS_TRIED:
            break
        tried += math.comb(hardware.count, demand.count)
        way = _way(site, demand, hardware, tables[hardware])
        if way is not None:
            ways.append(way)
    ways.sort(key=lambda way: (len(way.holders), size(way.missing), way.node))
    return ways[:NODES_SHOWN]


def _way(site: Site, demand: Demand, hardware: Hardware, tables: Tables) -> Way | None:
    if not tables.exact or not 1 <= demand.count <= tables.count:
        return None
    usable = int(site.facts.healthy & allowed_set(hardware, demand))
    sets = tables.candidates(demand.count)
    fits = (sets & ~usable) == 0
    if demand.min_link is not None:
        fits &= tables.within(demand.min_link)[sets]
    sets = sets[fits]
    if not len(sets):
        return None
    # GPUs that nobody is known to hold, such as those of pods that just ended, count as free soon.
    pods = sum(((sets & int(mask)) != 0).astype(np.int64) for mask in site.held.values())
    gpus = np.bitwise_count(sets & ~int(site.free)).astype(np.int64)
    best = np.lexsort((-tables.quality[sets], gpus, np.broadcast_to(pods, sets.shape)))[0]
    members = GpuSet(int(sets[best]))
    missing = GpuSet(members & ~site.free)
    return Way(
        node=site.node,
        members=members,
        missing=missing,
        holders=tuple(sorted(who for who, mask in site.held.items() if mask & members)),
        bus_bandwidth_gbs=float(tables.quality[members]),
    )


def promising(frees: Iterable[tuple[str, int]]) -> list[str]:
    """Return the nodes to be looked at closely, given how many GPUs each has free."""
    return [name for name, _ in sorted(frees, key=lambda one: (-one[1], one[0]))[:NODES_TRIED]]
