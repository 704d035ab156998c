"""Topology classes for tests: from machine descriptions, without NVML, and drawn by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping

from topology.catalogue import load_machine
from topology.links import Level
from topology.machines import Machine
from topology.model import CountMatrix, LevelMatrix, TopologyClass

# What the board's name says: compute capability and PCIe generation.
_BOARDS = (
    (r"K80", "3.7", 3),
    (r"P40|GTX", "6.1", 3),
    (r"P100", "6.0", 3),
    (r"V100", "7.0", 3),
    (r"2080|RTX ?8000|T4", "7.5", 3),
    (r"A100|A800|A30", "8.0", 4),
    (r"A40|A6000|3090", "8.6", 4),
    (r"L40|L4|4090", "8.9", 4),
    (r"H100|H200|H20|H800", "9.0", 5),
    (r"B200|B300", "10.0", 5),
    (r"5090|5060|PRO ?6000", "12.0", 5),
)


def machine_class(machine: Machine) -> TopologyClass:
    """Return the class of a machine description, its GPUs in index order.

    Where NVLinks hide the PCIe level and nothing uncovers it: NODE inside a NUMA node, else SYS.
    """
    compute, gen = next(
        (
            (cc, gen)
            for words, cc, gen in _BOARDS
            if re.search(words, f"{machine.name} {machine.model}", re.IGNORECASE)
        ),
        ("", 0),
    )
    numa = tuple(
        int(gpu.numa) if gpu.numa is not None and gpu.numa.isdecimal() else -1
        for gpu in machine.gpus
    )
    count = len(machine.gpus)
    return TopologyClass(
        nvlinks=machine.nvlinks,
        switch=tuple(0 if machine.nvlink.nvswitch else -1 for _ in range(count)),
        pcie=tuple(
            tuple(
                level if level is not None else Level.NODE if numa[i] == numa[j] else Level.SYS
                for j, level in enumerate(row)
            )
            for i, row in enumerate(machine.levels)
        ),
        compute=(compute,) * count,
        pcie_gen=(gen,) * count,
        numa=numa,
        nic=tuple(
            min((nic.gpus[i] for nic in machine.nics), default=Level.SYS) for i in range(count)
        ),
    )


def shipped_class(name: str) -> TopologyClass:
    """Return the class of a shipped machine."""
    return machine_class(load_machine(name))


def drawn_class(
    count: int,
    *,
    links: Mapping[str, int] | None = None,
    levels: Mapping[str, Level] | None = None,
    other: Level = Level.SYS,
    switch: tuple[int, ...] | None = None,
    compute: str = "7.0",
    pcie_gen: int = 3,
    numa: tuple[int, ...] | None = None,
) -> TopologyClass:
    """Draw a machine of up to 16 GPUs: pairs are written as two hexadecimal digits, ``"03"``."""
    counts = [[0] * count for _ in range(count)]
    pcie = [[Level.SELF if i == j else other for j in range(count)] for i in range(count)]
    for pair, number in (links or {}).items():
        one, two = (int(digit, 16) for digit in pair)
        counts[one][two] = counts[two][one] = number
    for pair, level in (levels or {}).items():
        one, two = (int(digit, 16) for digit in pair)
        pcie[one][two] = pcie[two][one] = level
    nvlinks: CountMatrix = tuple(map(tuple, counts))
    matrix: LevelMatrix = tuple(map(tuple, pcie))
    return TopologyClass(
        nvlinks=nvlinks,
        switch=switch or (-1,) * count,
        pcie=matrix,
        compute=(compute,) * count,
        pcie_gen=(pcie_gen,) * count,
        numa=numa or (-1,) * count,
        nic=(Level.SYS,) * count,
    )


def pairs_among(members: str) -> tuple[str, ...]:
    """Return all pairs of the digits: ``pairs_among("012")`` is 01, 02, 12."""
    return tuple(a + b for n, a in enumerate(members) for b in members[n + 1 :])


def draw_dgx1v() -> TopologyClass:
    """Draw the hybrid cube mesh of V100s, labelled as the reference allocator's tests have it."""
    double = dict.fromkeys(["03", "04", "12", "15", "23", "47", "56", "67"], 2)
    single = dict.fromkeys(["01", "02", "13", "26", "37", "45", "46", "57"], 1)
    levels = dict.fromkeys(pairs_among("0123") + pairs_among("4567"), Level.PHB)
    levels |= dict.fromkeys(["01", "23", "45", "67"], Level.PIX)
    return drawn_class(8, links=double | single, levels=levels, numa=(0,) * 4 + (1,) * 4)


def draw_dgx1p() -> TopologyClass:
    """Draw the same board with P100s: one link inside each quad and from GPU i to i+4."""
    links = dict.fromkeys(pairs_among("0123") + pairs_among("4567"), 1)
    links |= dict.fromkeys(["04", "15", "26", "37"], 1)
    levels = dict.fromkeys(pairs_among("0123") + pairs_among("4567"), Level.PHB)
    levels |= dict.fromkeys(["02", "13", "46", "57"], Level.PIX)
    return drawn_class(8, links=links, levels=levels, compute="6.0", numa=(0,) * 4 + (1,) * 4)


def draw_rtx8000() -> TopologyClass:
    """Draw four GPUs in two sockets, bridged across them."""
    levels = {"01": Level.NODE, "23": Level.NODE}
    return drawn_class(4, links={"03": 2, "12": 2}, levels=levels, compute="7.5", numa=(0, 0, 1, 1))


def draw_bridged_pairs() -> TopologyClass:
    """Draw eight A100s, each two of them bridged by 12 links, four to a socket."""
    levels = dict.fromkeys(pairs_among("0123") + pairs_among("4567"), Level.NODE)
    links = dict.fromkeys(["01", "23", "45", "67"], 12)
    return drawn_class(
        8, links=links, levels=levels, compute="8.0", pcie_gen=4, numa=(0,) * 4 + (1,) * 4
    )


def draw_switch(count: int, *, links: int = 18, compute: str = "9.0") -> TopologyClass:
    """Draw GPUs under one NVSwitch, half of them in each socket."""
    half = count // 2
    levels = {
        f"{i:x}{j:x}": Level.NODE if (i < half) == (j < half) else Level.SYS
        for j in range(count)
        for i in range(j)
    }
    return drawn_class(
        count,
        links=dict.fromkeys(levels, links),
        levels=levels,
        switch=(0,) * count,
        compute=compute,
        pcie_gen=5,
        numa=tuple(0 if i < half else 1 for i in range(count)),
    )


def draw_pcie_tree(count: int = 16) -> TopologyClass:
    """Draw PCIe alone: pairs under one switch, fours under two, eights in a socket."""

    def level(i: int, j: int) -> Level:
        for width, near in ((2, Level.PIX), (4, Level.PXB), (8, Level.NODE)):
            if i // width == j // width:
                return near
        return Level.SYS

    levels = {f"{i:x}{j:x}": level(i, j) for j in range(count) for i in range(j)}
    return drawn_class(
        count, levels=levels, compute="8.9", pcie_gen=4, numa=tuple(i // 8 for i in range(count))
    )
