"""The published policies that FGD was compared with, from their formulas.

Scores are whole numbers of 0 to 100, as kube-scheduler wants them. The scales are the largest
node of the trace: 128 cores and 8 GPUs.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import NO_KIND, View
from scheduler.simulation.policies.framework import Rating, Steadfast, Ties
from traces.openb import WHOLE_GPU_MILLI, TaskClass

TOP: Final = 100
CPU_SCALE: Final = 128_000
GPU_SCALE: Final = 8_000


def whole(scores: FloatArray) -> IntArray:
    """Cut scores down to whole numbers; a hair is added so that rounding errors do not count."""
    answer: IntArray = np.floor(scores + 1e-9).astype(np.int64)
    return answer


class Random(Steadfast):
    """Any node that can take the task, and any GPU there."""

    name = "random"
    ties = Ties.RANDOM
    random_devices = True

    def rate(self, view: View, task: TaskClass) -> Rating:  # noqa: ARG002 -- the protocol's
        """Rate all alike."""
        return Rating(np.zeros(len(view), np.int64))


class DotProduct(Steadfast):
    """The least product of what is free and what is asked for."""

    name = "dotprod"

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return 100 x (1 - (cpu free x asked / scale^2 + gpu free x asked / scale^2) / 2)."""
        cpu = view.cpu * (task.cpu_milli / CPU_SCALE**2)
        gpu = view.share.sum(axis=1) * (task.gpu_milli / GPU_SCALE**2)
        return Rating(whole(TOP * (1 - (cpu + gpu) / 2)))


class BestFit(Steadfast):
    """The least that is left."""

    name = "bestfit"

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return 100 x (1 - (cpu left / scale + gpu left / scale) / 2)."""
        cpu = (view.cpu - task.cpu_milli) / CPU_SCALE
        gpu = (view.share.sum(axis=1) - task.gpu_milli) / GPU_SCALE
        return Rating(whole(TOP * (1 - (cpu + gpu) / 2)))


class Clustering(Steadfast):
    """Nodes with pods of the same GPU count; then those with least GPU free."""

    name = "clustering"

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return 75, 50, 25 or 0 by what runs there, and up to 25 by how little is free."""
        group = view.cluster.group(task)
        if group == NO_KIND:
            return Rating(np.zeros(len(view), np.int64))
        pods = view.group_pods
        mine = pods[:, group] > 0
        others = pods.sum(axis=1) > pods[:, group]
        affinity = np.select([mine & ~others, mine, ~others], [75, 50, 25], 0)
        # On the scale of 8 GPUs whatever the node has: those that it lacks count as used.
        used = (GPU_SCALE - view.share.sum(axis=1)) / GPU_SCALE
        return Rating(whole(affinity + 25 * used))


class Packing(Steadfast):
    """GPUs in use before idle GPUs of a node in use before idle nodes."""

    name = "packing"

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return 50 to 100 for a GPU in use, 33 to 50 for a node in use, below for an idle node."""
        if not task.gpus:
            return Rating(np.zeros(len(view), np.int64))
        share = view.share
        idle = (share == WHOLE_GPU_MILLI).sum(axis=1)
        fresh = np.maximum(50 - idle, 33)
        scores = np.where(idle == view.gpus, 33 - view.gpus, fresh)
        if task.shares:
            partly = np.where(share < WHOLE_GPU_MILLI, share, 0)
            usable = (partly >= task.share_milli).any(axis=1)
            # A tenth of each percent that is free: 10 thousandths make one percent.
            packed = np.maximum(TOP - whole(partly.sum(axis=1) / 100), 50)
            scores = np.where(usable, packed, scores)
        return Rating(scores)
