"""The waste of nodes under an expected workload: FGD's measure F (Weng et al., ATC 2023).

For a node with free shares u_i and U their sum, a class m of the workload wastes all of U if the
node cannot host it (too little CPU, too few GPUs with its share free, or another model), or if
it wants no GPU; else it wastes the shares that are too small for it. F sums over m, weighted by
how often m comes. Classes with the same GPU count and share differ in CPU and model only, so one
look-up by CPU level replaces the sum over them: 35 to 127 classes become some 15 forms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.columns import Kind
from scheduler.engine.request import WHOLE_GPU_MILLI
from scheduler.engine.workload import PodClass, PodMix


class Workload:
    """A mix prepared for look-up, against the kinds of nodes of a cluster.

    `counts` and `shares` describe the forms; `hosting[kind, level, form]` is the weight of the
    form's classes that a node of this kind hosts with CPU of this level. The last kind, which -1
    finds, is a node of unknown GPUs: it hosts none.
    """

    def __init__(self, mix: PodMix, kinds: Sequence[Kind]) -> None:
        wanted = [(one, weight) for one, weight in mix.items() if one.gpus]
        forms = sorted({(one.gpus, one.share_milli) for one, _ in wanted})
        self.counts: IntArray = np.array([gpus for gpus, _ in forms], np.int64)
        self.shares: IntArray = np.array([share for _, share in forms], np.int64)
        self.levels: IntArray = np.array(sorted({one.cpu_milli for one, _ in wanted}), np.int64)
        self.hosting: FloatArray = np.zeros((len(kinds) + 1, len(self.levels) + 1, len(forms)))
        for one, weight in wanted:
            level = int(np.searchsorted(self.levels, one.cpu_milli)) + 1
            form = forms.index((one.gpus, one.share_milli))
            for number, kind in enumerate(kinds):
                if one.takes(kind):
                    self.hosting[number, level:, form] += weight

    def level(self, cpu: IntArray) -> IntArray:
        """Return which step of `hosting` free CPU stands on."""
        answer: IntArray = np.searchsorted(self.levels, cpu, side="right")
        return answer

    def hosted(self, cpu: IntArray, kind: IntArray) -> FloatArray:
        """Return, by row and form, the weight of the classes whose CPU and model are there."""
        answer: FloatArray = self.hosting[kind, self.level(cpu)]
        return answer

    def waste(self, cpu: IntArray, share: IntArray, kind: IntArray) -> FloatArray:
        """Return F in thousandths of a GPU, one number a row; `share` has a column a GPU."""
        idle = share.sum(axis=1)
        fits = share[:, :, None] >= self.shares
        slivers = np.where(fits, 0, share[:, :, None]).sum(axis=1)
        usable = np.where(fits.sum(axis=1) >= self.counts, idle[:, None] - slivers, 0)
        answer: FloatArray = idle - (self.hosted(cpu, kind) * usable).sum(axis=1)
        return answer

    def waste_by_device(
        self, cpu: IntArray, share: IntArray, kind: IntArray, taken: int
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
        hosted = self.hosted(cpu, kind)
        answer: FloatArray = idle[:, None] - np.einsum("rdf,rf->rd", usable, hosted)
        return answer


def take_idle(share: IntArray, count: int) -> IntArray:
    """Return the shares after `count` idle GPUs of each row, the lowest, are given away."""
    idle = share == WHOLE_GPU_MILLI
    answer: IntArray = np.where(idle & (idle.cumsum(axis=1) <= count), 0, share)
    return answer


def waste_gains(
    workload: Workload, cpu: IntArray, share: IntArray, kind: IntArray, pod: PodClass
) -> FloatArray:
    """Return by how many thousandths of a GPU a pod lessens each node's waste.

    One column for each GPU that a pod with a share may get, -inf where too little is free; one
    column in all for other pods.
    """
    before = workload.waste(cpu, share, kind)
    left = cpu - pod.cpu_milli
    if not 0 < pod.share_milli < WHOLE_GPU_MILLI:
        after = workload.waste(left, take_idle(share, pod.gpus), kind)
        return (before - after)[:, None]
    after = workload.waste_by_device(left, share, kind, pod.share_milli)
    gains: FloatArray = np.where(share >= pod.share_milli, before[:, None] - after, -np.inf)
    return gains
