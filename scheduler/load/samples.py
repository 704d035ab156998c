"""What was measured on a node, and why some of it is not taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray

Metric = Literal["cpu", "memory", "network", "disk", "gpu"]

METRICS: Final[tuple[Metric, ...]] = ("cpu", "memory", "network", "disk", "gpu")

Fault = Literal[
    "above_one", "duplicate", "future", "infinite", "nan", "negative", "unknown_node", "unreadable"
]

FAULTS: Final[tuple[Fault, ...]] = (
    "above_one", "duplicate", "future", "infinite", "nan", "negative", "unknown_node", "unreadable",
)  # fmt: skip

SLACK: Final = 0.05
"""How far beyond 0 to 1 is rounding: 1 - rate(idle) falls below 0 by the scrapes' jitter."""

SKEW_SECONDS: Final = 10.0
"""How far ahead of ours a source's clock may be."""


class Sample(msgspec.Struct, frozen=True):
    """One value in use: 0 idle, 1 full.

    `taken` is when it was measured, in Unix seconds; `window` is over how many seconds before
    that it is an average.
    """

    value: float
    taken: float
    window: float = 0.0


class Reading(msgspec.Struct, frozen=True):
    """What one answer said about one metric: at most one sample a node.

    `faults` counts what was not taken, by reason; `example` is one of them in words.
    """

    metric: Metric
    source: str
    samples: Mapping[str, Sample]
    faults: Mapping[Fault, int]
    example: str = ""

    def arrays(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return values, times and windows in the order of `samples`."""
        every = self.samples.values()
        count = len(every)
        return (
            np.fromiter((sample.value for sample in every), np.float64, count),
            np.fromiter((sample.taken for sample in every), np.float64, count),
            np.fromiter((sample.window for sample in every), np.float64, count),
        )


class Intake:
    """Collects the samples of one answer; whatever is wrong with one is counted, not raised."""

    def __init__(self, metric: Metric, source: str, now: float) -> None:
        self._metric: Metric = metric
        self._source = source
        self._now = now
        self._samples: dict[str, Sample] = {}
        self._faults: dict[Fault, int] = {}
        self._example = ""

    def refuse(self, fault: Fault, example: str) -> None:
        """Count what is not taken."""
        self._faults[fault] = self._faults.get(fault, 0) + 1
        if not self._example:
            self._example = f"{fault}: {example}"

    def offer(self, node: str, value: float, taken: float, window: float) -> None:
        """Take a sample, unless its value or time cannot be.

        Of two for one node the higher value counts: nobody knows which of them lies, and a node
        thought too busy costs less than one thought idle.
        """
        fault = fault_of(value)
        if fault is not None:
            self.refuse(fault, f"{node} {value:g}")
        elif not taken <= self._now + SKEW_SECONDS:
            self.refuse("future", f"{node} {taken - self._now:.0f} s ahead")
        else:
            sample = Sample(min(max(value, 0.0), 1.0), min(taken, self._now), window)
            known = self._samples.get(node)
            if known is not None:
                self.refuse("duplicate", f"{node} {known.value:g} and {sample.value:g}")
            if known is None or sample.value > known.value:
                self._samples[node] = sample

    def close(self) -> Reading:
        """Return what was taken."""
        return Reading(self._metric, self._source, self._samples, self._faults, self._example)


def fault_of(value: float) -> Fault | None:
    """Return why a value cannot be a share in use, None if it can."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "infinite"
    if value < -SLACK:
        return "negative"
    if value > 1 + SLACK:
        return "above_one"
    return None
