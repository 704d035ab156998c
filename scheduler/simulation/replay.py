"""One run: tasks arrive one by one and are placed, nothing departs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.placers import NOWHERE, Placer
from traces.openb import TaskClass


class Course(msgspec.Struct, frozen=True):
    """What happened, one entry an arrival.

    `rows` are the nodes (NOWHERE if none could take the task); `cpu` and `share` are what was
    free there afterwards, `bandwidth` the predicted bus bandwidth of its set in GB/s. Of tasks
    that found no node they say nothing.
    """

    tasks: Sequence[TaskClass]
    rows: IntArray
    cpu: IntArray
    share: IntArray
    bandwidth: FloatArray


def replay(cluster: Cluster, tasks: Sequence[TaskClass], placer: Placer) -> Course:
    """Place the tasks in their order and return what happened; `cluster` is used up."""
    rows = np.full(len(tasks), NOWHERE, np.int64)
    cpu = np.zeros(len(tasks), np.int64)
    share = np.zeros((len(tasks), cluster.share.shape[1]), np.int64)
    bandwidth = np.zeros(len(tasks))
    for at, task in enumerate(tasks):
        placement = placer.place(task)
        if placement is None:
            continue
        row = placement.row
        rows[at] = row
        cpu[at] = cluster.cpu[row]
        share[at] = cluster.share[row]
        bandwidth[at] = placement.bus_bandwidth_gbs
    return Course(tasks, rows, cpu, share, bandwidth)
