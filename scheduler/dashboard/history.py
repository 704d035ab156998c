"""How measures went, in bounded memory: the last hour finely, the last day coarsely. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

WINDOWS: Final = {"hour": (10.0, 360), "day": (240.0, 360)}
"""Each window's step in seconds and how many steps are kept."""

Values = tuple[float | None, ...]


class _Step(msgspec.Struct):
    """What came within one step: sums and counts, so that its mean is to be had."""

    at: float
    sums: list[float]
    counts: list[int]

    def add(self, values: Values) -> None:
        for place, value in enumerate(values):
            if value is not None:
                self.sums[place] += value
                self.counts[place] += 1

    def mean(self, place: int) -> float | None:
        return self.sums[place] / self.counts[place] if self.counts[place] else None


class Window:
    """The means of the last `keep` steps of `step` seconds each."""

    def __init__(self, step: float, keep: int) -> None:
        self._step = step
        self._steps: deque[_Step] = deque(maxlen=keep)

    def add(self, at: float, values: Values) -> None:
        """Take the values of one moment, in Unix seconds; a clock that went back is followed."""
        start = at - at % self._step
        while self._steps and self._steps[-1].at > start:
            self._steps.pop()
        if not self._steps or self._steps[-1].at < start:
            self._steps.append(_Step(start, [0.0] * len(values), [0] * len(values)))
        self._steps[-1].add(values)

    def points(self, place: int) -> tuple[tuple[float, float | None], ...]:
        """Return one measure's means by their step's beginning."""
        return tuple((step.at, step.mean(place)) for step in self._steps)

    def __len__(self) -> int:
        return len(self._steps)


class History:
    """Several measures over all windows. `names` are theirs, in the order of the values."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.windows = {name: Window(*given) for name, given in WINDOWS.items()}

    def add(self, at: float, values: Values) -> None:
        """Take the values of one moment. Raises ValueError unless there is one for each name."""
        if len(values) != len(self.names):
            raise ValueError(f"{len(values)} values for {len(self.names)} measures")
        for window in self.windows.values():
            window.add(at, values)

    def points(self, name: str, window: str) -> tuple[tuple[float, float | None], ...]:
        """Return a measure over a window."""
        return self.windows[window].points(self.names.index(name))
