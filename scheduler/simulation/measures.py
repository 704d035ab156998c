"""What a run was worth: GPU thousandths without a task, and those of no use, by arrived load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import BoolArray, FloatArray, IntArray
from scheduler.engine.waste import Workload
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.placers import NOWHERE
from scheduler.simulation.replay import Course

FIRST_PERCENT: Final = 75
"""The least arrived load that is reported, in percent of the cluster's GPUs."""


class Outcome(msgspec.Struct, frozen=True):
    """A run's figures, in percent of all GPUs, by the arrived load in percent (75, 76, ...).

    `bandwidth_gbs` is the mean predicted bus bandwidth of the tasks placed, by their number of
    GPUs (2, 4, ...) and over all of them ("all"), in GB/s; empty where nodes have no links.
    """

    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: int
    bandwidth_gbs: dict[str, float] = {}


def measure(
    course: Course, cluster: Cluster, workload: Workload, upto: int, *, linked: bool = False
) -> Outcome:
    """Average the figures over the arrivals whose arrived load rounds to the same percent.

    Where a cluster is so small that none does, the figure after the last arrival before stands,
    so that there is one for each percent from 75 to `upto`. `cluster` is the one that was
    replayed on, for its capacities; `workload` is what waste is measured against, FGD's own
    whatever the policy. `linked` nodes have machines, and their sets a bandwidth.
    """
    asked = np.array([task.gpu_milli for task in course.tasks], np.float64)
    placed = course.rows != NOWHERE
    total = float(cluster.gpu_milli)
    # The empty cluster stands before the first arrival.
    free = 100 - 100 * _sum_up(np.where(placed, asked, 0)) / total
    wasted = 100 * _waste_course(course, cluster, workload) / total
    percent = np.floor(100 * _sum_up(asked) / total + 0.5).astype(np.int64)
    wanted = range(FIRST_PERCENT, upto + 1)
    return Outcome(
        unallocated_pct=_average(percent, free, wanted),
        fragmented_pct=_average(percent, wasted, wanted),
        failed=int((~placed).sum()),
        bandwidth_gbs=_average_bandwidth(course, placed) if linked else {},
    )


def _average_bandwidth(course: Course, placed: BoolArray) -> dict[str, float]:
    gpus = np.array([task.gpus for task in course.tasks], np.int64)
    several = placed & (gpus > 1)
    groups = {str(size): several & (gpus == size) for size in np.unique(gpus[several]).tolist()}
    return {
        name: round(float(course.bandwidth[chosen].mean()), 3)
        for name, chosen in {**groups, "all": several}.items()
        if chosen.any()
    }


def _waste_course(course: Course, cluster: Cluster, workload: Workload) -> FloatArray:
    """Return the cluster's waste at first and after each arrival: one node changes at a time."""
    width = np.arange(cluster.share.shape[1])
    empty = np.where(width < cluster.gpus[:, None], 1000, 0)
    at_first = workload.waste(cluster.cpu_capacity, empty, cluster.model)
    placed = np.flatnonzero(course.rows != NOWHERE)
    rows = course.rows[placed]
    after = workload.waste(course.cpu[placed], course.share[placed], cluster.model[rows])
    changes = np.zeros(len(course.rows))
    # The waste before a placement is that after the last one on the same node.
    latest = at_first.copy()
    for at, row, waste in zip(placed.tolist(), rows.tolist(), after.tolist(), strict=True):
        changes[at] = waste - latest[row]
        latest[row] = waste
    answer: FloatArray = at_first.sum() + _sum_up(changes)
    return answer


def _sum_up(values: FloatArray) -> FloatArray:
    """Return the sums of the first none, one, two, ... values."""
    return np.concatenate([np.zeros(1), np.cumsum(values)])


def _average(percent: IntArray, figures: FloatArray, wanted: range) -> dict[str, float]:
    answer = {}
    for x in wanted:
        # Loads never fall: the arrivals of one percent stand side by side.
        first, after = np.searchsorted(percent, [x, x + 1])
        chosen = figures[first:after] if first < after else figures[first - 1]
        answer[str(x)] = round(float(np.mean(chosen)), 4)
    return answer


class MeanOutcome(msgspec.Struct, frozen=True):
    """The mean of runs: each figure over the runs that have it."""

    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: float
    bandwidth_gbs: dict[str, float] = {}


def mean_outcome(outcomes: Sequence[Outcome]) -> MeanOutcome:
    """Return the mean of one run or more."""
    return MeanOutcome(
        unallocated_pct=_mean([outcome.unallocated_pct for outcome in outcomes]),
        fragmented_pct=_mean([outcome.fragmented_pct for outcome in outcomes]),
        failed=math.fsum(outcome.failed for outcome in outcomes) / len(outcomes),
        bandwidth_gbs=_mean([outcome.bandwidth_gbs for outcome in outcomes]),
    )


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = sorted({key for row in rows for key in row}, key=lambda key: (len(key), key))
    return {
        key: round(math.fsum(found) / len(found), 4)
        for key in keys
        if (found := [row[key] for row in rows if key in row])
    }
