"""How good a GPU set is: its predicted all-reduce bus bandwidth, and the reference's pair score.

The bandwidth of a set is that of the best of three ways to run a ring through exactly its
members:

- all under one NVSwitch: the fewest links of a pair, each at the switched rate, with the gain of
  in-switch reduction where the generation has it. Equal sizes under one healthy switch are equal;
- direct NVLinks: the greatest number of edge-disjoint rings (`topology.rings`), each at one
  link's rate;
- PCIe: the ring whose worst hop is best; NVLinks may carry some of its hops, its worst hop
  decides.

Values are GB/s in one direction, as nccl-tests' busbw, rounded to 1 MB/s so that equal sets
compare equal. One GPU or none has no traffic: 0.0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from topology.cycles import has_cycle
from topology.gpuset import GpuSet, positions
from topology.links import (
    PAIR_SCORE_NVLINK_CAP,
    PAIR_SCORE_OF_LEVEL,
    PAIR_SCORE_PER_NVLINK,
    Level,
)
from topology.model import TopologyClass
from topology.rates import nvlink_rate, nvls_gain, pcie_rate
from topology.rings import count_rings

EXACT_MESH: Final = 8
"""NVLink meshes of more GPUs are judged by their widest single ring: no such board exists."""


@lru_cache(maxsize=1 << 16)
def bus_bandwidth(cls: TopologyClass, members: GpuSet) -> float:
    """Return the predicted all-reduce bus bandwidth of a set in GB/s, 0.0 below two GPUs."""
    where = tuple(positions(members))
    if len(where) < 2:
        return 0.0
    switch_links = count_switch_links(cls, where)
    if switch_links:
        nvlink = switch_bandwidth(cls, where, switch_links)
    else:
        nvlink = ring_bandwidth(cls, where, ring_count(cls, members))
    return max(nvlink, pcie_bandwidth(cls, where, worst_hop(cls, members)))


def count_switch_links(cls: TopologyClass, where: tuple[int, ...]) -> int:
    """Return the fewest NVLinks of a pair if all these GPUs share one switch group, else 0."""
    group = cls.switch[where[0]]
    if group < 0 or any(cls.switch[i] != group for i in where):
        return 0
    return min(cls.nvlinks[i][j] for n, i in enumerate(where) for j in where[:n])


def switch_bandwidth(cls: TopologyClass, where: tuple[int, ...], links: int) -> float:
    """Return what `links` links of each GPU to one switch carry, in GB/s."""
    computes = [cls.compute[i] for i in where]
    rate = nvlink_rate(computes, switched=True)
    return round(links * rate * nvls_gain(computes, len(where)), 3)


def ring_bandwidth(cls: TopologyClass, where: tuple[int, ...], rings: int) -> float:
    """Return what that many rings over direct NVLinks carry, in GB/s."""
    rate = nvlink_rate((cls.compute[i] for i in where), switched=False)
    return round(rings * rate, 3)


def pcie_bandwidth(cls: TopologyClass, where: tuple[int, ...], worst: Level) -> float:
    """Return what a ring over PCIe with this worst hop carries, in GB/s."""
    return round(pcie_rate((cls.pcie_gen[i] for i in where), worst), 3)


def ring_count(cls: TopologyClass, members: GpuSet) -> int:
    """Return how many edge-disjoint directed NVLink rings run through exactly the members.

    Exact where at most `EXACT_MESH` GPUs hang together; larger meshes are judged by their widest
    single ring, taken in both directions. Links through a switch count as wires here;
    `bus_bandwidth` does not ask for sets that share one switch.
    """
    where = tuple(positions(members))
    if len(where) < 2 or members & ~mesh_of(cls, where[0]):
        return 0
    ports = min(port_counts(cls)[i] for i in where)
    if mesh_of(cls, where[0]).bit_count() <= EXACT_MESH or len(where) == 2:
        links = tuple(tuple(cls.nvlinks[i][j] for j in where) for i in where)
        return min(count_rings(links), ports)
    for count in link_counts(cls):
        if has_cycle(nvlink_neighbours(cls, count), members):
            return min(2 * count, ports)
    return 0


def worst_hop(cls: TopologyClass, members: GpuSet) -> Level:
    """Return the worst PCIe hop of the best ring through the members, at least PIX."""
    for level in (Level.PIX, Level.PXB, Level.PHB, Level.NODE):
        if has_cycle(pcie_neighbours(cls, level), members):
            return level
    return Level.SYS


def pair_score(cls: TopologyClass, members: GpuSet) -> int:
    """Return the reference allocator's score of a set: its pairs' PCIe levels and NVLinks."""
    where = list(positions(members))
    return sum(score_pair(cls, i, j) for n, i in enumerate(where) for j in where[:n])


def score_pair(cls: TopologyClass, one: int, other: int) -> int:
    """Return the reference allocator's score of two GPUs."""
    links = min(cls.nvlinks[one][other], PAIR_SCORE_NVLINK_CAP)
    return PAIR_SCORE_OF_LEVEL[cls.pcie[one][other]] + PAIR_SCORE_PER_NVLINK * links


@lru_cache(maxsize=1024)
def link_counts(cls: TopologyClass) -> tuple[int, ...]:
    """Return the NVLink counts that pairs of the class have, most first, without 0."""
    return tuple(sorted({cell for row in cls.nvlinks for cell in row if cell}, reverse=True))


@lru_cache(maxsize=1024)
def nvlink_neighbours(cls: TopologyClass, links: int) -> tuple[int, ...]:
    """Return, for each GPU, the mask of GPUs that it reaches by at least `links` NVLinks."""
    return tuple(sum(1 << j for j, cell in enumerate(row) if cell >= links) for row in cls.nvlinks)


@lru_cache(maxsize=1024)
def pcie_neighbours(cls: TopologyClass, worst: Level) -> tuple[int, ...]:
    """Return, for each GPU, the mask of GPUs that it reaches by NVLink or no worse than `worst`."""
    return tuple(
        sum(
            1 << j
            for j in range(cls.count)
            if j != i and (cls.nvlinks[i][j] or cls.pcie[i][j] <= worst)
        )
        for i in range(cls.count)
    )


@lru_cache(maxsize=4096)
def mesh_of(cls: TopologyClass, position: int) -> int:
    """Return the mask of GPUs that hang together with this one by NVLinks."""
    neighbours = nvlink_neighbours(cls, 1)
    mesh = 1 << position
    grown = 0
    while grown != mesh:
        grown = mesh
        for i in positions(GpuSet(grown)):
            mesh |= neighbours[i]
    return mesh


@lru_cache(maxsize=1024)
def port_counts(cls: TopologyClass) -> tuple[int, ...]:
    """Return how many NVLinks each GPU has: to its switch (shared by all pairs) and directly."""
    ports: list[int] = []
    for i, row in enumerate(cls.nvlinks):
        switched = [
            cell
            for j, cell in enumerate(row)
            if cls.switch[i] >= 0 and cls.switch[i] == cls.switch[j]
        ]
        ports.append(sum(row) - sum(switched) + max(switched, default=0))
    return tuple(ports)
