"""What stock kube-scheduler does: it scores CPU and memory, and knows nothing of GPUs."""

from __future__ import annotations

import numpy as np

from scheduler.simulation.cluster import View
from scheduler.simulation.policies.framework import Rating, Steadfast, Ties
from scheduler.simulation.policies.published import TOP, whole
from traces.openb import TaskClass


class StockScheduler(Steadfast):
    """NodeResourcesFit by LeastAllocated plus NodeResourcesBalancedAllocation, weight 1 each."""

    name = "kube"
    ties = Ties.RANDOM

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Return up to 100 for what is free plus up to 100 for even use of CPU and memory."""
        cpu_all = np.maximum(view.cpu_capacity, 1)
        memory_all = np.maximum(view.memory_capacity, 1)
        cpu = np.clip((view.cpu - task.cpu_milli) / cpu_all, 0, 1)
        memory = np.clip((view.memory - task.memory_mib) / memory_all, 0, 1)
        least = (whole(TOP * cpu) + whole(TOP * memory)) // 2
        # Of two numbers, the standard deviation is half their difference.
        balanced = whole(TOP * (1 - np.abs(cpu - memory) / 2))
        return Rating(least + balanced)
