"""Topology levels in `nvidia-smi topo -m`'s words, and what each kind of link carries.

A pair of GPUs is described on two axes that stay apart: the PCIe level beneath (always there)
and the NVLinks above it (perhaps none). `topo -m` prints only one of them in a cell.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

MAX_NVLINKS: Final = 36
"""The most links of one GPU that NVML 13 can number."""


class Level(IntEnum):
    """The PCIe relation of two devices, nearer is smaller. Values order, they do not measure."""

    SELF = 0
    PIX = 1
    PXB = 2
    PHB = 3
    NODE = 4
    SYS = 5


CELL_OF_LEVEL: Final = {
    Level.SELF: "X",
    Level.PIX: "PIX",
    Level.PXB: "PXB",
    Level.PHB: "PHB",
    Level.NODE: "NODE",
    Level.SYS: "SYS",
}
LEVEL_OF_CELL: Final = {cell: level for level, cell in CELL_OF_LEVEL.items()}

# NVML's numbers for the nearest common ancestor of two GPUs. INTERNAL (0, two GPUs of one board)
# is printed as PIX by nvidia-smi, and carries what PIX carries.
NVML_OF_LEVEL: Final = {
    Level.PIX: 10,
    Level.PXB: 20,
    Level.PHB: 30,
    Level.NODE: 40,
    Level.SYS: 50,
}
LEVEL_OF_NVML: Final = {0: Level.PIX, **{number: level for level, number in NVML_OF_LEVEL.items()}}

_NVLINK_CELL = re.compile(r"NV([1-9][0-9]?)")


def parse_nvlink_cell(cell: str) -> int | None:
    """Return n of a cell ``NVn``, or None if it is no NVLink cell that exists.

    >>> parse_nvlink_cell("NV12"), parse_nvlink_cell("PIX"), parse_nvlink_cell("NV99")
    (12, None, None)
    """
    match = _NVLINK_CELL.fullmatch(cell)
    if match is None or int(match[1]) > MAX_NVLINKS:
        return None
    return int(match[1])


def format_cell(level: Level, nvlinks: int) -> str:
    """Return what `nvidia-smi topo -m` prints for a pair: the NVLinks if any, else the level."""
    return f"NV{nvlinks}" if nvlinks else CELL_OF_LEVEL[level]


# Score of a pair in the reference allocator: its PCIe level plus 100 for each NVLink, the links
# capped at 18 (facts of go-gpuallocator v0.6.0). Kept for comparison and as a tie-break.
PAIR_SCORE_OF_LEVEL: Final = {
    Level.PIX: 50,
    Level.PXB: 40,
    Level.PHB: 30,
    Level.NODE: 20,
    Level.SYS: 10,
}
PAIR_SCORE_PER_NVLINK: Final = 100
PAIR_SCORE_NVLINK_CAP: Final = 18
