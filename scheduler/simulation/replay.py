"""One run: tasks arrive one by one, a policy places them, nothing departs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import Cluster, View
from scheduler.simulation.policies.framework import (
    Policy,
    Rating,
    Ties,
    idle_devices,
    tightest,
)
from scheduler.simulation.trace import TaskClass

NOWHERE = -1
"""The row of a task that no node could take."""


class Course(msgspec.Struct, frozen=True):
    """What happened, one entry an arrival.

    `rows` are the nodes (NOWHERE if none could take the task); `cpu` and `share` are what was
    free there afterwards. Of tasks that found no node they say nothing.
    """

    tasks: Sequence[TaskClass]
    rows: IntArray
    cpu: IntArray
    share: IntArray


class _Ratings:
    """The ratings of one task class for all nodes, brought up to date for the nodes that changed.

    A node changes by one placement, a class comes again after some: only the rows touched in
    between are rated anew. Rows that cannot take the class stand at minus infinity.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.scores: FloatArray = np.full(len(cluster), -np.inf)
        self.devices: IntArray = np.zeros(len(cluster), np.int64)
        self.upto = 0

    def refresh(self, cluster: Cluster, policy: Policy, task: TaskClass, rows: IntArray) -> None:
        view = View(cluster, rows)
        fits = view.feasible(task)
        if not fits.all():
            self.scores[rows] = -np.inf
            rows = rows[fits]
            view = View(cluster, rows)
        if not len(rows):
            return
        rating: Rating = policy.rate(view, task)
        self.scores[rows] = rating.scores
        if task.shares:
            devices = rating.devices
            self.devices[rows] = (
                tightest(view.share, task.share_milli) if devices is None else devices
            )


def replay(
    cluster: Cluster, tasks: Sequence[TaskClass], policy: Policy, dice: np.random.Generator
) -> Course:
    """Place the tasks in their order and return what happened; `cluster` is used up."""
    known: dict[TaskClass, _Ratings] = {}
    touched: list[int] = []
    everywhere = np.arange(len(cluster))
    rows = np.full(len(tasks), NOWHERE, np.int64)
    cpu = np.zeros(len(tasks), np.int64)
    share = np.zeros((len(tasks), cluster.share.shape[1]), np.int64)
    for at, task in enumerate(tasks):
        if policy.observe(task):
            known.clear()
        ratings = known.get(task)
        if ratings is None:
            ratings = known[task] = _Ratings(cluster)
            ratings.refresh(cluster, policy, task, everywhere)
        elif ratings.upto < len(touched):
            changed = np.array(sorted(set(touched[ratings.upto :])), np.int64)
            ratings.refresh(cluster, policy, task, changed)
        ratings.upto = len(touched)
        row = pick(ratings.scores, policy.ties, cluster.rank, dice)
        if row == NOWHERE:
            continue
        rated = int(ratings.devices[row])
        if policy.random_devices and task.shares:
            fitting = np.flatnonzero(cluster.share[row] >= task.share_milli)
            rated = int(fitting[dice.integers(len(fitting))])
        cluster.place(row, task, _devices(cluster, row, task, rated))
        touched.append(row)
        rows[at] = row
        cpu[at] = cluster.cpu[row]
        share[at] = cluster.share[row]
    return Course(tasks, rows, cpu, share)


def pick(scores: FloatArray, ties: Ties, rank: IntArray, dice: np.random.Generator) -> int:
    """Return the row with the highest score, NOWHERE if all stand at minus infinity."""
    first = int(scores.argmax())
    best = scores[first]
    if best == -np.inf:
        return NOWHERE
    if ties is Ties.FIRST:
        return first
    among = np.flatnonzero(scores == best)
    if ties is Ties.RANDOM:
        return int(among[dice.integers(len(among))])
    return int(among[rank[among].argmin()])


def _devices(cluster: Cluster, row: int, task: TaskClass, rated: int) -> Sequence[int]:
    if not task.gpus:
        return ()
    if task.shares:
        return (rated,)
    return idle_devices(cluster.share[row].tolist(), task.gpus)
