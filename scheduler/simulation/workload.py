"""The workload that is expected, and the waste of nodes under it: FGD's measure F.

For a node with free shares u_i and U their sum, a class m of the workload wastes all of U if the
node cannot host it (too little CPU, too few GPUs with its share free, or another model), or if
it wants no GPU; else it wastes the shares that are too small for it. F sums over m, weighted by
how often m comes. Classes with the same GPU count and share differ in CPU and model only, so one
look-up by CPU level replaces the sum over them: 35 to 127 classes become some 15 forms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.trace import TaskClass

TARGET_COVERAGE = 0.95
"""The most frequent classes are taken until they cover this part of the tasks."""


class Demand(msgspec.Struct, frozen=True):
    """A class as the measure sees it: memory is no part of it."""

    cpu_milli: int
    gpus: int
    share_milli: int
    models: tuple[str, ...] = ()


def demand_of(task: TaskClass) -> Demand:
    """Return a task's class without its memory."""
    return Demand(task.cpu_milli, task.gpus, task.share_milli, task.models)


def target_mix(
    tasks: Iterable[TaskClass], coverage: float = TARGET_COVERAGE
) -> dict[Demand, float]:
    """Return the most frequent classes that cover the tasks, with weights that sum up to 1."""
    counts = Counter(map(demand_of, tasks))
    return trim_mix(counts, coverage)


def trim_mix(
    counts: Mapping[Demand, float], coverage: float = TARGET_COVERAGE
) -> dict[Demand, float]:
    """Return the heaviest classes until they cover that part of the counts, scaled to 1."""
    total = sum(counts.values())
    kept: dict[Demand, float] = {}
    covered = 0.0
    # Equal counts in the order of their contents, so that the mix depends on the tasks alone.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], msgspec.structs.astuple(item[0])))
    for demand, count in ordered:
        if covered >= coverage * total:
            break
        kept[demand] = float(count)
        covered += count
    return {demand: count / covered for demand, count in kept.items()}


class Workload:
    """A mix prepared for look-up, against the models of a cluster.

    `counts` and `shares` describe the forms; `hosting[model, level, form]` is the weight of the
    form's classes that a node of this model hosts with CPU of this level.
    """

    def __init__(self, mix: Mapping[Demand, float], models: Sequence[str]) -> None:
        wanted = [(demand, weight) for demand, weight in mix.items() if demand.gpus]
        forms = sorted({(demand.gpus, demand.share_milli) for demand, _ in wanted})
        self.counts: IntArray = np.array([gpus for gpus, _ in forms], np.int64)
        self.shares: IntArray = np.array([share for _, share in forms], np.int64)
        self.levels: IntArray = np.array(
            sorted({demand.cpu_milli for demand, _ in wanted}), np.int64
        )
        self.hosting: FloatArray = np.zeros((len(models), len(self.levels) + 1, len(forms)))
        for demand, weight in wanted:
            level = int(np.searchsorted(self.levels, demand.cpu_milli)) + 1
            form = forms.index((demand.gpus, demand.share_milli))
            for number, model in enumerate(models):
                if not demand.models or model in demand.models:
                    self.hosting[number, level:, form] += weight

    def hosted(self, cpu: IntArray, model: IntArray) -> FloatArray:
        """Return, by row and form, the weight of the classes whose CPU and model are there."""
        answer: FloatArray = self.hosting[model, np.searchsorted(self.levels, cpu, side="right")]
        return answer

    def waste(self, cpu: IntArray, share: IntArray, model: IntArray) -> FloatArray:
        """Return F in thousandths of a GPU, one number a row; `share` has a column a GPU."""
        idle = share.sum(axis=1)
        fits = share[:, :, None] >= self.shares
        slivers = np.where(fits, 0, share[:, :, None]).sum(axis=1)
        usable = np.where(fits.sum(axis=1) >= self.counts, idle[:, None] - slivers, 0)
        answer: FloatArray = idle - (self.hosted(cpu, model) * usable).sum(axis=1)
        return answer

    def waste_by_device(
        self, cpu: IntArray, share: IntArray, model: IntArray, taken: int
    ) -> FloatArray:
        """Return F by row and GPU, after `taken` of that GPU is given away; `cpu` is what is left.

        Where a GPU has less free than `taken` the number means nothing.
        """
        rest = share - taken
        fits = share[:, :, None] >= self.shares
        rest_fits = rest[:, :, None] >= self.shares
        counts = fits.sum(axis=1)[:, None, :] + rest_fits - fits
        kept = np.where(fits, share[:, :, None], 0)
        usable = kept.sum(axis=1)[:, None, :] - kept + np.where(rest_fits, rest[:, :, None], 0)
        usable = np.where(counts >= self.counts, usable, 0)
        idle = share.sum(axis=1) - taken
        # The matrix product adds in another order than `waste` does; the difference is rounding.
        hosted = self.hosted(cpu, model)
        answer: FloatArray = idle[:, None] - np.einsum("rdf,rf->rd", usable, hosted)
        return answer
