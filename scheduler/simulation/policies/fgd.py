"""Fragmentation gradient descent (Weng et al., USENIX ATC 2023), from its formulas."""

from __future__ import annotations

import numpy as np

from scheduler.engine.waste import Workload, waste_gains
from scheduler.simulation.classes import pod_class
from scheduler.simulation.cluster import View
from scheduler.simulation.policies.framework import Rating, Steadfast
from scheduler.simulation.policies.published import TOP, whole
from traces.openb import WHOLE_GPU_MILLI, TaskClass


class Fgd(Steadfast):
    """The steepest descent of the waste, in whole points of a sigmoid."""

    name = "fgd"

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return floor(100 x sigmoid(gain / 1000)), of the best GPU."""
        gains = waste_gains(self.workload, view.cpu, view.share, view.model, pod_class(task))
        points = whole(TOP / (1 + np.exp(-gains / WHOLE_GPU_MILLI)))
        devices = points.argmax(axis=1)
        return Rating(points.max(axis=1), devices if task.shares else None)
