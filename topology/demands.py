"""What a pod can demand of each pair of its GPUs: no pair linked worse than this."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from topology.errors import SelectionError
from topology.gpuset import GpuSet, positions
from topology.links import LEVEL_OF_CELL, MAX_NVLINKS, Level, format_cell
from topology.model import TopologyClass

_NVLINKS = re.compile(r"NV([1-9][0-9]?)?")
_WORDS: Final = "NV, NV1 to NV36, PIX, PXB, PHB, NODE or SYS"


class MinLink(msgspec.Struct, frozen=True):
    """A pair is at least this near: `nvlinks` of them if that is positive, else PCIe `level`.

    NVLinks meet every PCIe level. Larger is nearer when two of these are compared by `rank`.
    """

    level: Level = Level.SYS
    nvlinks: int = 0

    @property
    def rank(self) -> int:
        """A number that grows with nearness: NVLinks count up from 1, PCIe levels down from 0."""
        return self.nvlinks or -int(self.level)

    def __str__(self) -> str:
        return format_cell(self.level, self.nvlinks)


def parse_min_link(text: str) -> MinLink:
    """Read a demand in `nvidia-smi topo -m`'s words; ``NV`` means any NVLink.

    Raises SelectionError naming the word.

    >>> str(parse_min_link("NV4")), str(parse_min_link("PXB")), str(parse_min_link("NV"))
    ('NV4', 'PXB', 'NV1')
    """
    word = text.strip()
    match = _NVLINKS.fullmatch(word)
    if match is not None:
        nvlinks = int(match[1] or 1)
        if nvlinks <= MAX_NVLINKS:
            return MinLink(level=Level.SELF, nvlinks=nvlinks)
    level = LEVEL_OF_CELL.get(word)
    if level is None or level is Level.SELF:
        raise SelectionError(f"min-link: {text[:40]!r} is none of {_WORDS}")
    return MinLink(level=level)


def pair_link(cls: TopologyClass, one: int, other: int) -> MinLink:
    """Return what links two GPUs, in the demand's terms."""
    nvlinks = cls.nvlinks[one][other]
    if nvlinks:
        return MinLink(level=Level.SELF, nvlinks=nvlinks)
    return MinLink(level=cls.pcie[one][other])


def worst_link(cls: TopologyClass, members: GpuSet) -> MinLink | None:
    """Return the link of the worst pair, None for fewer than two GPUs."""
    where = list(positions(members))
    pairs = (pair_link(cls, i, j) for n, i in enumerate(where) for j in where[:n])
    return min(pairs, key=lambda link: link.rank, default=None)


def meets(cls: TopologyClass, members: GpuSet, demand: MinLink) -> bool:
    """Return whether no pair of the set is linked worse than the demand."""
    worst = worst_link(cls, members)
    return worst is None or worst.rank >= demand.rank


def near_masks(cls: TopologyClass, demand: MinLink) -> tuple[int, ...]:
    """Return, for each GPU, the mask of GPUs whose pair with it meets the demand."""
    return tuple(
        sum(1 << j for j in range(cls.count) if j != i and pair_link(cls, i, j).rank >= demand.rank)
        for i in range(cls.count)
    )
