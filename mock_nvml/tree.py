"""A PCI tree for a machine description: every pair's level, also the ones that it does not tell.

Entities are the GPUs in index order, then the NICs. The description tells some pairs' levels;
NVLinks and missing NIC columns hide others. Groups nest: one switch (PIX), switches under an upper
one (PXB), one host bridge (PHB), one NUMA node (NODE), the machine (SYS).
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import msgspec

from topology.cpulist import parse_list
from topology.links import Level
from topology.machines import Machine
from topology.model import LevelMatrix

_Known = dict[tuple[int, int], Level]

NESTED = (Level.PIX, Level.PXB, Level.PHB, Level.NODE)


class PciTree(msgspec.Struct, frozen=True):
    """`groups[level][e]` names entity e's group at that level by the group's first member.

    `levels` is the full matrix. A pair that the description tells keeps its level there even if no
    tree can show it (levels of a real tree are ultrametric). `numa_nodes` is sysfs' numa_node of
    each entity, -1 where the firmware names none.
    """

    groups: dict[Level, tuple[int, ...]]
    levels: LevelMatrix
    numa_nodes: tuple[int, ...]


def grow_tree(machine: Machine) -> PciTree:
    """Complete the machine's levels and group its devices."""
    known = _known_pairs(machine)
    count = len(machine.gpus) + len(machine.nics)
    labels = list(range(count))
    groups: dict[Level, tuple[int, ...]] = {}
    for level in NESTED:
        for (first, second), told in known.items():
            if told <= level:
                _join(labels, first, second)
        if level is Level.NODE:
            _join_by_numa(machine, known, labels)
        groups[level] = tuple(labels)
    return PciTree(
        groups=groups,
        levels=_complete(known, groups, count),
        numa_nodes=_choose_nodes(machine, groups, count),
    )


def _known_pairs(machine: Machine) -> _Known:
    gpus = len(machine.gpus)
    known: _Known = {}
    for a, b in combinations(range(gpus), 2):
        level = machine.levels[a][b]
        if level is not None:
            known[a, b] = level
    for at, nic in enumerate(machine.nics):
        for gpu, level in enumerate(nic.gpus):
            known[gpu, gpus + at] = level
        for other, level in enumerate(nic.nics or ()):
            if other != at:
                known[gpus + min(at, other), gpus + max(at, other)] = level
    return known


def _join(labels: list[int], first: int, second: int) -> None:
    keep, drop = sorted((labels[first], labels[second]))
    if keep != drop:
        labels[:] = [keep if label == drop else label for label in labels]


def _join_by_numa(machine: Machine, known: _Known, labels: list[int]) -> None:
    """Put GPUs of one NUMA node together where nothing told keeps them apart."""
    near = [frozenset(parse_list(gpu.numa or "")) for gpu in machine.gpus]
    for a, b in combinations(range(len(near)), 2):
        # A range that all GPUs share (a flattened virtual machine) tells nothing.
        told = len(near[a]) == 1 or any(near[a].isdisjoint(other) for other in near if other)
        if not near[a] or not told or near[a] != near[b] or labels[a] == labels[b]:
            continue
        mine = [at for at, label in enumerate(labels) if label == labels[a]]
        theirs = [at for at, label in enumerate(labels) if label == labels[b]]
        pairs = ((min(x, y), max(x, y)) for x in mine for y in theirs)
        if not any(known.get(pair) is Level.SYS for pair in pairs):
            _join(labels, a, b)


def _single_node(numa: str | None) -> int | None:
    nodes = parse_list(numa or "")
    return nodes[0] if len(nodes) == 1 else None


def _complete(known: _Known, groups: dict[Level, tuple[int, ...]], count: int) -> LevelMatrix:
    rows = [[Level.SELF] * count for _ in range(count)]
    for a, b in combinations(range(count), 2):
        level = known.get((a, b))
        if level is None:
            shared = (at for at in NESTED if groups[at][a] == groups[at][b])
            level = next(shared, Level.SYS)
        rows[a][b] = rows[b][a] = level
    return tuple(map(tuple, rows))


def _choose_nodes(
    machine: Machine, groups: dict[Level, tuple[int, ...]], count: int
) -> tuple[int, ...]:
    """Give each NODE group a numa_node of its own, or -1.

    A group of several host bridges needs one, since only an equal numa_node makes their level
    NODE. It takes its GPUs' node if they all name the same and no other group has it; else a
    member of their ranges; else a number that no list has. A group of one host bridge goes
    without then, as in virtual machines.
    """
    members: dict[int, list[int]] = {}
    for at, label in enumerate(groups[Level.NODE]):
        members.setdefault(label, []).append(at)
    near = {
        label: {machine.gpus[at].numa or "" for at in group if at < len(machine.gpus)}
        for label, group in members.items()
    }
    scattered = {
        label
        for label, group in members.items()
        if len({groups[Level.PHB][at] for at in group}) > 1
    }
    nodes = _claim_named(near, scattered)
    fresh = max((node for gpu in machine.gpus for node in parse_list(gpu.numa or "")), default=-1)
    for label in sorted(scattered - nodes.keys()):
        ranges = [set(parse_list(text)) for text in near[label]]
        offered = set().union(*(range_ for range_ in ranges if len(range_) > 1))
        offered -= set(nodes.values())
        fresh += 1
        nodes[label] = min(offered, default=fresh)
    return tuple(nodes.get(groups[Level.NODE][at], -1) for at in range(count))


def _claim_named(near: dict[int, set[str]], scattered: set[int]) -> dict[int, int]:
    """Give groups the one node that all their GPUs name.

    Groups that are SYS to each other and name one node show that the firmware names none to the
    kernel; of those only one that needs a node to hold together gets it.
    """
    claims = {
        label: node
        for label, texts in near.items()
        if len(texts) == 1 and (node := _single_node(next(iter(texts)))) is not None
    }
    rivals = Counter(claims.values())
    nodes: dict[int, int] = {}
    for label, node in claims.items():
        if node not in nodes.values() and (rivals[node] == 1 or label in scattered):
            nodes[label] = node
    return nodes
