"""Our policy: little waste, CPU and GPU used up together, rare models kept for who needs them.

Scores are thousandths of a GPU, not rounded, so that no order of nodes is hidden in them. Five
terms, each a function of arrays of nodes:

* what the placement gains in waste (FGD's measure), limited: to gain a whole GPU on a node that
  has much of no use says little more than to gain half of one;
* minus the part of the node's CPU that would be left free: used nodes are filled before others;
* minus the stranded part, by which the free part of its GPUs would exceed that of its CPU: such
  GPUs will stay idle for want of CPU;
* minus the GPUs that this placement strands, plus those that it frees. Not for tasks without
  GPUs: they only take CPU, and would be driven to nodes where it is plentiful instead of to those
  whose GPUs are taken;
* minus the pressure on the node's GPU model from tasks that can run on few models only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import View
from scheduler.simulation.policies.fgd import waste_gains
from scheduler.simulation.policies.framework import Rating, Steadfast, Ties
from scheduler.simulation.trace import WHOLE_GPU_MILLI, TaskClass
from scheduler.simulation.workload import Demand, Workload, demand_of, target_mix, trim_mix

DECIMALS: Final = 6
"""Differences below a millionth of a thousandth of a GPU are rounding, not reasons."""


class Weights(msgspec.Struct, frozen=True):
    """The constants, in thousandths of a GPU; docs/simulation.md tells how they were found."""

    gain_limit: float = 1000.0
    free_cpu: float = 90.0
    stranded: float = 270.0
    stranding: float = 100.0
    pressure: float = 150.0


def limit_gains(gains: FloatArray, limit: float) -> FloatArray:
    """Return gains bent so that none is beyond the limit; small ones stay as they are."""
    answer: FloatArray = limit * np.tanh(gains / limit)
    return answer


def free_parts(free: IntArray, capacity: IntArray) -> FloatArray:
    """Return the part of each node's capacity that is free, 0 where it has none."""
    answer: FloatArray = free / np.maximum(capacity, 1)
    return answer


def stranded_part(gpu: FloatArray, cpu: FloatArray) -> FloatArray:
    """Return by how much the free part of a node's GPUs exceeds that of its CPU."""
    answer: FloatArray = np.maximum(gpu - cpu, 0)
    return answer


def model_pressure(
    mix: Mapping[Demand, float], models: Sequence[str], supply_milli: Sequence[int]
) -> FloatArray:
    """Return, by model, the part of its GPUs that tasks bound to models would take.

    It is worked out for a demand as large as the cluster: each task that names models asks for
    its GPUs from all of these alike. 0 everywhere when no task names one.
    """
    supply = dict(zip(models, supply_milli, strict=True))
    pressure = dict.fromkeys(models, 0.0)
    total = sum(weight * demand.gpus * demand.share_milli for demand, weight in mix.items())
    for demand, weight in mix.items():
        named = [model for model in demand.models if supply.get(model, 0)]
        offered = sum(supply[model] for model in named)
        for model in named:
            asked = weight * demand.gpus * demand.share_milli / total
            pressure[model] += asked * sum(supply_milli) / offered
    return np.array([pressure[model] for model in models])


class Gputopo(Steadfast):
    """Our policy for a workload that is given, as FGD's is."""

    name = "gputopo"
    ties = Ties.NAME

    def __init__(
        self,
        workload: Workload,
        pressure: FloatArray,
        weights: Weights = Weights(),  # noqa: B008 -- a frozen value
    ) -> None:
        self.workload = workload
        self.pressure = pressure
        self.weights = weights

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Rate nodes in thousandths of a GPU; the GPU of a task with a share gains most."""
        weights = self.weights
        gains = waste_gains(self.workload, view.cpu, view.share, view.model, task)
        # Sums come out a hair apart by how many rows are rated at once: equals must stay equal.
        gains = np.round(gains, DECIMALS)
        devices = gains.argmax(axis=1)
        idle = view.share.sum(axis=1)
        gpu_capacity = view.gpus * WHOLE_GPU_MILLI
        cpu_capacity = view.cpu_capacity
        cpu = free_parts(view.cpu - task.cpu_milli, cpu_capacity)
        after = stranded_part(free_parts(idle - task.gpu_milli, gpu_capacity), cpu)
        scores = limit_gains(gains.max(axis=1), weights.gain_limit)
        scores -= weights.free_cpu * cpu
        scores -= weights.stranded * after
        if task.gpu_milli:
            parts = free_parts(idle, gpu_capacity), free_parts(view.cpu, cpu_capacity)
            scores -= weights.stranding * view.gpus * (after - stranded_part(*parts))
            asked = task.gpu_milli / WHOLE_GPU_MILLI
            scores -= weights.pressure * asked * self.pressure[view.model]
        return Rating(np.round(scores, DECIMALS), devices if task.shares else None)


def supply_of(models: Sequence[str], model: IntArray, gpus: IntArray) -> list[int]:
    """Return the GPU thousandths of each model."""
    counts = np.bincount(model, weights=gpus, minlength=len(models))
    return [int(count) * WHOLE_GPU_MILLI for count in counts]


def given(
    tasks: Sequence[TaskClass], models: Sequence[str], supply_milli: Sequence[int]
) -> Gputopo:
    """Make the policy for a list of tasks that is known beforehand."""
    mix = target_mix(tasks)
    whole = target_mix(tasks, coverage=1.0)
    return Gputopo(Workload(mix, models), model_pressure(whole, models, supply_milli))


class LearningGputopo(Gputopo):
    """Our policy as it runs live: the workload is what arrived so far, old arrivals fading."""

    name = "gputopo-learned"

    HALF_LIFE: float = 20_000
    """An arrival counts half after so many others."""

    MOST_BETWEEN = 2_000
    """The workload is prepared anew after a quarter more arrivals, at the latest after these."""

    def __init__(
        self,
        models: Sequence[str],
        supply_milli: Sequence[int],
        weights: Weights = Weights(),  # noqa: B008 -- a frozen value
    ) -> None:
        super().__init__(Workload({}, models), np.zeros(len(models)), weights)
        self._models = models
        self._supply = supply_milli
        self._counts: dict[Demand, float] = {}
        self._weight = 1.0
        self._seen = 0
        self._due = 1

    def observe(self, task: TaskClass) -> bool:
        """Count a task; returns whether the workload was prepared anew."""
        demand = demand_of(task)
        # New arrivals grow instead of old ones fading: one number changes, not all.
        self._counts[demand] = self._counts.get(demand, 0.0) + self._weight
        self._weight *= 2 ** (1 / self.HALF_LIFE)
        self._seen += 1
        if self._seen < self._due:
            return False
        self._due = self._seen + min(1 + self._seen // 4, self.MOST_BETWEEN)
        total = sum(self._counts.values())
        # Fades below a millionth are forgotten, and the weights start from 1 again.
        self._counts = {
            known: count / self._weight
            for known, count in self._counts.items()
            if count > total * 1e-6
        }
        self._weight = 1.0
        self.workload = Workload(trim_mix(self._counts), self._models)
        self.pressure = model_pressure(trim_mix(self._counts, 1.0), self._models, self._supply)
        return True
