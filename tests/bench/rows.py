"""A measured row, and the arithmetic that rows are made with. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

Wanted = Literal["at most", "at least"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: ours beside a peer or a limit, measured in the same run.

    `ours` and `other` are in `unit`; one is None where there is nothing to stand beside the other.
    No ratio is made of what is `foreign`: the other was measured elsewhere. `goal`
    bounds the ratio ours/other, or ours itself where there is no other or the goal is `plain`;
    `held_to` is what it may not fall behind while that is missed. `spread` is the least and the
    greatest of what `ours` is the median of. `note` says what no column does.
    """

    table: str
    name: str
    ours: float | None
    other: float | None = None
    unit: str
    wanted: Wanted = "at most"
    goal: float | None = None
    plain: bool = False
    foreign: bool = False
    held_to: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the other; None if there is none, or none that can be compared."""
        if self.foreign or self.ours is None or not self.other:
            return None
        return self.ours / self.other

    @property
    def judged(self) -> float:
        """The number that the goal is about; not a number where nothing of ours was measured."""
        number = self.ours if self.plain or self.ratio is None else self.ratio
        return math.nan if number is None else number

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached, None if there is none."""
        if self.goal is None:
            return None
        return self.judged <= self.goal if self.wanted == "at most" else self.judged >= self.goal


def summarise(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median, and the least and the greatest."""
    return statistics.median(values), (min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of them lie; of few values the greatest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return e of the best fit value = c * size^e: 1 grows as the size does, 0 not at all."""
    import numpy as np

    slope, _ = np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-12)), 1)
    return float(slope)
