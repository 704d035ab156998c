"""The cluster of a replay: nodes as numpy columns, and the view of some rows that policies score.

Rows stand in the order of the run's node permutation. CPU is in thousandths of a core, memory in
MiB, GPUs in thousandths of one: `share[row, i]` is what is free of GPU i; GPUs that a smaller
node does not have are never free, so that no mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from scheduler.engine.arrays import BoolArray, IntArray
from topology.gpuset import GpuSet, positions
from traces.openb import WHOLE_GPU_MILLI, Node, TaskClass

MOST_PODS: Final = 1001
"""Pods that a node takes, as in the published protocol."""

NO_KIND: Final = -1


class Cluster:
    """What is free on each node. `place` and `give_back` are the only changes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        count = len(nodes)
        # One column at least: the best of a node's GPUs is asked for even where none has any.
        width = max([1, *(node.gpus for node in nodes)])
        self.names = [node.name for node in nodes]
        self.cpu_capacity = np.array([node.cpu_milli for node in nodes], np.int64)
        self.memory_capacity = np.array([node.memory_mib for node in nodes], np.int64)
        self.gpus = np.array([node.gpus for node in nodes], np.int64)
        self.models = sorted({node.model for node in nodes})
        self.model = np.array([self.models.index(node.model) for node in nodes], np.int64)
        self.cpu = self.cpu_capacity.copy()
        self.memory = self.memory_capacity.copy()
        self.pods = np.zeros(count, np.int64)
        present = np.arange(width)[None, :] < self.gpus[:, None]
        self.share = np.where(present, WHOLE_GPU_MILLI, 0).astype(np.int64)
        # Which GPU counts the pods on a node ask for: all shares are one group, CPU alone none.
        self.groups: dict[int, int] = {}
        self.group_pods = np.zeros((count, 8), np.int64)
        ranks = np.empty(count, np.int64)
        ranks[sorted(range(count), key=self.names.__getitem__)] = np.arange(count)
        self.rank = ranks

    @property
    def gpu_milli(self) -> int:
        """All GPU thousandths, free or not."""
        return int(self.gpus.sum()) * WHOLE_GPU_MILLI

    def __len__(self) -> int:
        return len(self.names)

    def group(self, task: TaskClass) -> int:
        """Return the column of `group_pods` for tasks like this, NO_KIND if it wants no GPU."""
        if not task.gpus:
            return NO_KIND
        key = 0 if task.shares else task.gpus
        known = self.groups.setdefault(key, len(self.groups))
        if known == self.group_pods.shape[1]:
            self.group_pods = np.pad(self.group_pods, ((0, 0), (0, known)))
        return known

    def fits(self, row: int, task: TaskClass) -> bool:
        """Return whether one node can take a task now: `View.feasible` for a single row."""
        if self.cpu[row] < task.cpu_milli or self.memory[row] < task.memory_mib:
            return False
        if self.pods[row] >= MOST_PODS:
            return False
        if task.models and self.models[self.model[row]] not in task.models:
            return False
        if not task.gpus:
            return True
        return int((self.share[row] >= task.share_milli).sum()) >= task.gpus

    def place(self, row: int, task: TaskClass, members: GpuSet) -> None:
        """Take what a task asks for, from these GPUs of a node."""
        self._change(row, task, members, 1)

    def give_back(self, row: int, task: TaskClass, members: GpuSet) -> None:
        """Put back what `place` took."""
        self._change(row, task, members, -1)

    def _change(self, row: int, task: TaskClass, members: GpuSet, sign: int) -> None:
        self.cpu[row] -= sign * task.cpu_milli
        self.memory[row] -= sign * task.memory_mib
        self.pods[row] += sign
        for device in positions(members):
            self.share[row, device] -= sign * task.share_milli
        group = self.group(task)
        if group != NO_KIND:
            self.group_pods[row, group] += sign


class View:
    """Some rows of a cluster as arrays: what a policy scores in one call."""

    def __init__(self, cluster: Cluster, rows: IntArray) -> None:
        self.cluster = cluster
        self.rows = rows
        self.cpu: IntArray = cluster.cpu.take(rows)
        self.share: IntArray = cluster.share.take(rows, axis=0)
        self.model: IntArray = cluster.model.take(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def memory(self) -> IntArray:
        """Free memory."""
        return self.cluster.memory.take(self.rows)

    @property
    def cpu_capacity(self) -> IntArray:
        """All CPU of the nodes."""
        return self.cluster.cpu_capacity.take(self.rows)

    @property
    def memory_capacity(self) -> IntArray:
        """All memory of the nodes."""
        return self.cluster.memory_capacity.take(self.rows)

    @property
    def gpus(self) -> IntArray:
        """How many GPUs the nodes have."""
        return self.cluster.gpus.take(self.rows)

    @property
    def group_pods(self) -> IntArray:
        """How many pods of each group of GPU counts run there."""
        return self.cluster.group_pods.take(self.rows, axis=0)

    def feasible(self, task: TaskClass) -> BoolArray:
        """Return which rows can take a task now."""
        fits = (self.cpu >= task.cpu_milli) & (self.memory >= task.memory_mib)
        fits &= self.cluster.pods.take(self.rows) < MOST_PODS
        if task.gpus:
            fits &= (self.share >= task.share_milli).sum(axis=1) >= task.gpus
        if task.models:
            allowed = np.array([model in task.models for model in self.cluster.models])
            fits &= allowed[self.model]
        return fits
