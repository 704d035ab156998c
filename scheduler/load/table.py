"""Samples of all nodes, and the one number that is made of them.

A node's load is the weighted mean of its metrics, each the newest sample plus the estimate for
pods that the sample cannot show. A metric that is stale or missing counts as the mean of the
nodes that have it: neither a punishment nor a gift. One that no node has is left out. A node
without any sample in use has no load: NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from scheduler.engine.arrays import BoolArray, FloatArray, IntArray
from scheduler.load.directory import Directory
from scheduler.load.nodes import NodeBook
from scheduler.load.recent import RecentPods, estimate
from scheduler.load.report import LoadReport, MetricReport
from scheduler.load.samples import METRICS, SKEW_SECONDS, Metric, Reading

_PLACE: Final = {metric: place for place, metric in enumerate(METRICS)}


class LoadTable:
    """Newest samples by metric and node, in the order of a directory; metrics are rows.

    `weights` count by their ratios. A sample older than `stale_seconds` is not used.
    """

    def __init__(
        self,
        nodes: NodeBook,
        pods: RecentPods,
        weights: Mapping[Metric, float],
        stale_seconds: float,
    ) -> None:
        self._nodes = nodes
        self._pods = pods
        self._stale = stale_seconds
        self._weights = np.array([float(weights.get(metric, 0.0)) for metric in METRICS])
        self._sources: list[str] = []
        self._neutral = np.full(len(METRICS), np.nan)
        self._directory = Directory((), {}, {}, ())
        self._allot(0)

    def _allot(self, count: int) -> None:
        shape = (len(METRICS), count)
        self._values = np.full(shape, np.nan)
        self._taken = np.full(shape, np.nan)
        self._windows = np.zeros(shape)
        self._source = np.full(shape, -1, np.int64)

    def take(self, reading: Reading, now: float) -> None:
        """Take the samples that are newer than those at hand."""
        self._align()
        places = self._directory.places
        kept = [place for node in reading.samples if (place := places.get(node)) is not None]
        if len(kept) < len(reading.samples):
            # Nodes that went while the answer was on its way.
            samples = {node: s for node, s in reading.samples.items() if node in places}
            reading = Reading(reading.metric, reading.source, samples, reading.faults)
        row = _PLACE[reading.metric]
        if not kept or not self._weights[row]:
            return
        values, taken, windows = reading.arrays()
        where = np.array(kept)
        # Nothing is older than NaN, so a first sample always counts; nor does one that was taken
        # before our clock was set back.
        known = self._taken[row, where]
        newer = ~(taken < known) | (known > now + SKEW_SECONDS)
        where = where[newer]
        self._values[row, where] = values[newer]
        self._taken[row, where] = taken[newer]
        self._windows[row, where] = windows[newer]
        self._source[row, where] = self._number(reading.source)

    def settle(self, now: float) -> tuple[tuple[str, ...], FloatArray]:
        """Return all nodes and their load as of `now`, in Unix seconds."""
        self._align()
        estimates = np.zeros_like(self._values)
        for node in self._pods.nodes:
            place = self._directory.places.get(node)
            if place is not None:
                estimates[:, place] = self._estimate(node, place)
        used = self._used(np.arange(len(self._directory.names)), estimates, now)
        known = ~np.isnan(used)
        counts = known.sum(axis=1)
        sums = np.where(known, used, 0.0).sum(axis=1)
        self._neutral = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return self._directory.names, combine(used, self._neutral, self._weights)

    def load_of(self, node: str, now: float) -> float | None:
        """Return one node's load by the other nodes' last means; None if it is not known."""
        self._align()
        place = self._directory.places.get(node)
        if place is None:
            return None
        used = self._used(np.array([place]), self._estimate(node, place)[:, None], now)
        return float(combine(used, self._neutral, self._weights)[0])

    def report(self, node: str, now: float) -> LoadReport | None:
        """Return what a node's load is made of; None if there is no such node."""
        self._align()
        place = self._directory.places.get(node)
        if place is None:
            return None
        estimates = self._estimate(node, place)
        used = self._used(np.array([place]), estimates[:, None], now)
        load = float(combine(used, self._neutral, self._weights)[0])
        filled = np.where(np.isnan(used[:, 0]), self._neutral, used[:, 0])
        shares = shares_of(self._neutral, self._weights)
        return LoadReport(
            node=node,
            at=now,
            load=_told(load),
            pods=len(self._pods.on(node)),
            metrics=tuple(
                self._metric(
                    row,
                    place,
                    share=float(shares[row]),
                    estimate=float(estimates[row]),
                    used=None if np.isnan(load) else _told(filled[row]),
                    now=now,
                )
                for row in range(len(METRICS))
                if self._weights[row] > 0
            ),
        )

    def covered(self, now: float) -> dict[Metric, tuple[int, float]]:
        """Return by metric how many nodes have a sample in use, and the age of the oldest.

        Ages are in seconds, 0 if there is none.
        """
        ages = now - self._taken
        fresh = self._fresh(np.arange(len(self._directory.names)), now)
        return {
            metric: (int(fresh[row].sum()), float(ages[row][fresh[row]].max(initial=0.0)))
            for row, metric in enumerate(METRICS)
            if self._weights[row] > 0
        }

    def _align(self) -> None:
        """Follow the nodes: rows of new ones are empty, those of removed ones are gone."""
        directory = self._nodes.directory
        if directory is self._directory:
            return
        old = self._values, self._taken, self._windows, self._source
        before, self._directory = self._directory.places, directory
        stay = [name for name in directory.names if name in before]
        into = np.array([directory.places[name] for name in stay], np.int64)
        out = np.array([before[name] for name in stay], np.int64)
        self._allot(len(directory.names))
        new = self._values, self._taken, self._windows, self._source
        for array, values in zip(new, old, strict=True):
            array[:, into] = values[:, out]

    def _estimate(self, node: str, place: int) -> FloatArray:
        size = self._nodes.sizes[node]
        taken, windows = self._taken[:, place], self._windows[:, place]
        return estimate(self._pods.on(node), size, taken, windows)

    def _used(self, places: IntArray, estimates: FloatArray, now: float) -> FloatArray:
        """Return what counts for these nodes, by metric: NaN without a sample in use."""
        fresh = self._fresh(places, now)
        values = self._values[:, places]
        used: FloatArray = np.where(fresh, np.clip(values + estimates, 0.0, 1.0), np.nan)
        return used

    def _fresh(self, places: IntArray, now: float) -> BoolArray:
        ages = now - self._taken[:, places]
        # A time ahead of ours was taken before our clock was set back.
        fresh: BoolArray = (ages <= self._stale) & (ages >= -SKEW_SECONDS)
        return fresh

    def _metric(
        self, row: int, place: int, *, share: float, estimate: float, used: float | None, now: float
    ) -> MetricReport:
        metric = METRICS[row]
        value = _told(self._values[row, place])
        if value is None:
            return MetricReport(metric, share, "missing", estimate=estimate, used=used)
        return MetricReport(
            metric=metric,
            share=share,
            state="fresh" if self._fresh(np.array([place]), now)[row, 0] else "stale",
            value=value,
            age_seconds=now - float(self._taken[row, place]),
            source=self._sources[int(self._source[row, place])],
            estimate=estimate,
            used=used,
        )

    def _number(self, source: str) -> int:
        if source not in self._sources:
            self._sources.append(source)
        return self._sources.index(source)


def combine(used: FloatArray, neutral: FloatArray, weights: FloatArray) -> FloatArray:
    """Return one load a node from its metrics (rows) in use.

    `neutral` stands where a node has none, and is NaN where no node has one.
    """
    filled = np.where(np.isnan(used), neutral[:, None], used)
    # Shares sum up to 1 but for rounding.
    load: FloatArray = np.clip(shares_of(neutral, weights) @ np.nan_to_num(filled), 0.0, 1.0)
    load[np.isnan(used).all(axis=0)] = np.nan
    return load


def shares_of(neutral: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weights as shares of 1 among the metrics that some node has."""
    counting = np.where(np.isnan(neutral), 0.0, weights)
    whole = counting.sum()
    shares: FloatArray = counting / whole if whole > 0 else counting
    return shares


def _told(number: float) -> float | None:
    return None if np.isnan(number) else float(number)
