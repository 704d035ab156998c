"""Fragmentation gradient descent (Weng et al., USENIX ATC 2023), from its formulas."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import View
from scheduler.simulation.policies.framework import Rating, Steadfast
from scheduler.simulation.policies.published import TOP, whole
from scheduler.simulation.trace import WHOLE_GPU_MILLI, TaskClass
from scheduler.simulation.workload import Workload


def take_idle(share: IntArray, count: int) -> IntArray:
    """Return the shares after `count` idle GPUs of each row, the lowest, are given away."""
    idle = share == WHOLE_GPU_MILLI
    answer: IntArray = np.where(idle & (idle.cumsum(axis=1) <= count), 0, share)
    return answer


def waste_gains(
    workload: Workload, cpu: IntArray, share: IntArray, model: IntArray, task: TaskClass
) -> FloatArray:
    """Return by how many thousandths of a GPU a task lessens each node's waste.

    One column for each GPU that a task with a share may get, -inf where too little is free; one
    column in all for other tasks.
    """
    before = workload.waste(cpu, share, model)
    left = cpu - task.cpu_milli
    if not task.shares:
        after = workload.waste(left, take_idle(share, task.gpus), model)
        return (before - after)[:, None]
    after = workload.waste_by_device(left, share, model, task.share_milli)
    gains: FloatArray = np.where(share >= task.share_milli, before[:, None] - after, -np.inf)
    return gains


class Fgd(Steadfast):
    """The steepest descent of the waste, in whole points of a sigmoid."""

    name = "fgd"

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return floor(100 x sigmoid(gain / 1000)), of the best GPU."""
        gains = waste_gains(self.workload, view.cpu, view.share, view.model, task)
        points = whole(TOP / (1 + np.exp(-gains / WHOLE_GPU_MILLI)))
        devices = points.argmax(axis=1)
        return Rating(points.max(axis=1), devices if task.shares else None)
