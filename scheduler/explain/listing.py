"""The list of nodes: what it is made of is taken at one moment, the lines are made bit by bit.

5,000 lines take 5 ms of Python; whoever asks to place a pod meanwhile must not wait for all of
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from scheduler.engine.columns import UNKNOWN
from scheduler.engine.request import WHOLE_GPU_MILLI
from scheduler.explain.fleet_shapes import NodeLine
from scheduler.explain.obtainable import obtainable
from topology.gpuset import GpuSet
from topology.tables import Tables

DIGITS: Final = 4

PART: Final = 128
"""Lines that are made at a time, in 0.2 ms."""


class Make(msgspec.Struct, frozen=True):
    """What nodes of equal hardware have in common."""

    models: tuple[str, ...]
    tables: Tables


class Lines(msgspec.Struct, frozen=True):
    """Nodes at one moment, a list for each of their properties.

    `makes` is the place of a node's make in `known`, UNKNOWN if nothing is known of its GPUs.
    `shares` is in thousandths of a GPU, `wasted` in GPUs, `loads` are NaN where none is known.
    """

    known: tuple[Make, ...]
    names: list[str]
    makes: list[int]
    sets: list[GpuSet]
    gpus: list[int]
    healthy: list[int]
    free: list[int]
    shares: list[int]
    wasted: list[float]
    loads: list[float]
    held_back: list[bool]

    def prepare(self) -> None:
        """Work out which links were lost, which may take a while; the parts find it done."""
        for make, free in {(make, free) for make, free in zip(self.makes, self.sets, strict=True)}:
            if make != UNKNOWN:
                obtainable(self.known[make].tables, free)

    def parts(self) -> Iterator[list[NodeLine]]:
        """Make the lines, PART at a time. Touches nothing that others own."""
        for start in range(0, len(self.names), PART):
            yield [self._line(at) for at in range(start, min(start + PART, len(self.names)))]

    def _line(self, at: int) -> NodeLine:
        make = None if self.makes[at] == UNKNOWN else self.known[self.makes[at]]
        load = self.loads[at]
        loss = None if make is None else obtainable(make.tables, self.sets[at]).link_loss
        return NodeLine(
            node=self.names[at],
            models=() if make is None else make.models,
            gpus=self.gpus[at],
            healthy=self.healthy[at],
            free=self.free[at],
            free_share=self.shares[at] / WHOLE_GPU_MILLI,
            held_back=self.held_back[at],
            known=make is not None,
            wasted=None if make is None else round(self.wasted[at], DIGITS),
            link_loss=None if loss is None else round(loss, DIGITS),
            load=None if load != load else load,  # noqa: PLR0124 -- only NaN is another than itself
        )
