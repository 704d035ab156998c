"""What the expected workload says of each node: gain in waste, and pressure on GPU models.

Gains are worked out by class of pods and row, once for each change of the row: a class comes
again after some others, and only the rows touched in between are worked out anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np

from scheduler.engine.arrays import BoolArray, FloatArray, IntArray
from scheduler.engine.columns import UNKNOWN, Columns, Kind
from scheduler.engine.request import WHOLE_GPU_MILLI, Demand, PodRequest
from scheduler.engine.waste import Workload, waste_gains
from scheduler.engine.workload import (
    Expected,
    Forecast,
    GivenWorkload,
    LearnedWorkload,
    MachineGroup,
    PodClass,
    PodMix,
    class_of,
    machine_pressure,
    trim_mix,
)

CLASSES_KEPT: Final = 64
"""Classes whose gains are kept, the least recently used goes first: 16 bytes a row each."""

SEEN_KEPT: Final = 1 << 16
"""Pods that are known to have been seen."""

DECIMALS: Final = 6
"""Differences below a millionth of a thousandth of a GPU are rounding, not reasons."""

_MOST_AT_ONCE: Final = 512
"""Rows worked out in one go: arrays of rows x GPUs x forms stay in the processor's cache."""

_WORTH_SORTING: Final = 512
"""With fewer rows than this it is quicker to work all of them out."""

_SCATTER: Final = np.int64(0x5851F42D4C957F2D)
"""An odd multiplier (Knuth's), whose powers spread what they multiply over 64 bits."""


class _Gains:
    """The best gain of each row for one class, and what is free of the GPU that has it."""

    def __init__(self) -> None:
        self.best: FloatArray = np.zeros(0)
        self.share: IntArray = np.zeros(0, np.int64)
        self.upto = -1


class Outlook:
    """The expected workload, prepared against a cluster's columns."""

    def __init__(self, columns: Columns, expected: Expected | None = None) -> None:
        self.expected: Expected = expected if expected is not None else LearnedWorkload()
        self.mix: PodMix = {}
        self._columns = columns
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._prepared: tuple[int, int] | None = None
        self._workload = Workload({}, [])
        self._forecast = Forecast(self.expected.source)
        self._weighed: tuple[int, int] | None = None
        self._group: IntArray = np.zeros(0, np.int64)
        self._pressure: FloatArray = np.zeros(1)
        self._kept: OrderedDict[PodClass, _Gains] = OrderedDict()

    def over(self, columns: Columns) -> Outlook:
        """Return the same expectation for other columns; it learns nothing any more."""
        expected = self.expected
        frozen = GivenWorkload(expected.counts(), source=expected.source, seen=expected.seen)
        return Outlook(columns, frozen)

    def observe(self, request: PodRequest) -> None:
        """Take note of a pod; one that was seen before, by its uid, counts once."""
        if request.uid:
            if request.uid in self._seen:
                return
            self._seen[request.uid] = None
            if len(self._seen) > SEEN_KEPT:
                self._seen.popitem(last=False)
        self.expected.observe(class_of(request))

    def workload(self) -> Workload:
        """Return the workload as it is expected now."""
        columns = self._columns
        now = (self.expected.version, len(columns.kinds))
        if self._prepared != now:
            self._prepared = now
            self.mix = trim_mix(self.expected.counts())
            self._workload = Workload(self.mix, columns.kinds)
            self._kept.clear()
            expected = self.expected
            self._forecast = Forecast(expected.source, expected.seen, tuple(self.mix.items()))
        return self._workload

    def forecast(self) -> Forecast:
        """Return the workload as it was prepared last."""
        return self._forecast

    def kinds(self, hardware: IntArray) -> IntArray:
        """Return the kinds of rows by their hardware numbers, UNKNOWN where there is none."""
        return np.array([*self._columns.hardware_kind, UNKNOWN], np.int64).take(hardware)

    def pressure(self, rows: IntArray) -> FloatArray:
        """Return, by row, the pressure on the node's kind of machine; see `machine_pressure`."""
        columns = self._columns
        now = (self.expected.version, columns.fleet)
        if self._weighed != now:
            self._weighed = now
            used = len(columns.names)
            hardware, cpu = columns.hardware[:used], columns.cpu_capacity[:used]
            # No node has 2^40 thousandths of a core.
            key = hardware * (1 << 40) + cpu
            _, first, self._group = np.unique(key, return_index=True, return_inverse=True)
            groups = [self._describe(row) for row in first.tolist()]
            milli = columns.gpus[:used].astype(np.float64) * WHOLE_GPU_MILLI
            supply = np.bincount(self._group, milli, len(groups)).astype(np.float64)
            whole = trim_mix(self.expected.counts(), 1.0)
            self._pressure = machine_pressure(whole, groups, supply)
        pressure: FloatArray = self._pressure[self._group[rows]]
        return pressure

    def _describe(self, row: int) -> MachineGroup:
        columns = self._columns
        hardware = int(columns.hardware[row])
        kind: Kind = frozenset()
        if hardware != UNKNOWN:
            kind = columns.hardware_list[hardware].kind
        return MachineGroup(kind, int(columns.gpus[row]), int(columns.cpu_capacity[row]))

    def gains(self, request: PodRequest, rows: IntArray) -> FloatArray:
        """Return by how many thousandths of a GPU the pod lessens the waste of these rows.

        It is that of the best GPU. What stands for rows that cannot take the pod means nothing.
        """
        return self._refreshed(request).best.take(rows)

    def device_shares(self, request: PodRequest, rows: IntArray) -> IntArray:
        """Return what is free of the GPU with the best gain, for pods that ask for a share.

        Of equals it is the one with the least free.
        """
        return self._refreshed(request).share.take(rows)

    def gains_by_device(self, request: PodRequest, row: int) -> FloatArray:
        """Return the gain of each GPU of a row for a pod that asks for a share, -inf if none."""
        gains: FloatArray = self._work_out(class_of(request), request.demand, np.array([row]))[0]
        return gains

    def _refreshed(self, request: PodRequest) -> _Gains:
        self.workload()
        pod, demand = class_of(request), request.demand
        known = self._kept.get(pod)
        if known is None:
            known = self._kept[pod] = _Gains()
            if len(self._kept) > CLASSES_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(pod)
        columns = self._columns
        if known.upto == columns.change:
            return known
        used = len(columns.names)
        if len(known.best) < used:
            grown = len(columns.hardware)
            known.best = np.pad(known.best, (0, grown - len(known.best)))
            known.share = np.pad(known.share, (0, grown - len(known.share)))
        stale = np.flatnonzero(columns.changed[:used] > known.upto)
        distinct, which = self._distinct(pod, stale)
        best, share = np.zeros(len(distinct)), np.zeros(len(distinct), np.int64)
        for first in range(0, len(distinct), _MOST_AT_ONCE):
            rows = distinct[first : first + _MOST_AT_ONCE]
            gains = self._work_out(pod, demand, rows)
            best[first : first + len(rows)] = most = gains.max(axis=1)
            if demand.shares:
                free = columns.share.take(rows, axis=0)
                tight = np.where(gains == most[:, None], free, WHOLE_GPU_MILLI + 1)
                share[first : first + len(rows)] = tight.min(axis=1)
        known.best[stale] = best[which]
        known.share[stale] = share[which]
        known.upto = columns.change
        return known

    def _distinct(self, pod: PodClass, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return one row of each kind of state among these, and which of them each row is like.

        Rows are alike in the hardware, in what is free of each GPU, and in the steps of CPU that
        the workload tells apart. Of 50,000 nodes a few thousand differ.
        """
        alone = rows, np.arange(len(rows))
        if len(rows) < _WORTH_SORTING:
            return alone
        columns, workload = self._columns, self.workload()
        share, cpu = columns.share.take(rows, axis=0), columns.cpu.take(rows)
        parts = (
            columns.hardware.take(rows),
            workload.level(cpu),
            workload.level(cpu - pod.cpu_milli),
        )
        # A sum that wraps around, as hashes do; that equal sums are equal rows is looked at below.
        key = (share * _SCATTER ** np.arange(1, share.shape[1] + 1)).sum(axis=1)
        for part in parts:
            key = key * _SCATTER + part
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        like = first[which]
        if (share == share[like]).all() and all((part == part[like]).all() for part in parts):
            return rows[first], which
        return alone

    def _work_out(self, pod: PodClass, demand: Demand, rows: IntArray) -> FloatArray:
        columns = self._columns
        hardware = columns.hardware.take(rows)
        kind = self.kinds(hardware)
        share = columns.share.take(rows, axis=0)
        gains = waste_gains(self.workload(), columns.cpu.take(rows), share, kind, pod)
        if demand.shares and pod.bound:
            gains = np.where(self.allowed(demand)[hardware], gains, -np.inf)
        # Sums come out a hair apart by how many rows are rated at once: equals must stay equal.
        answer: FloatArray = np.round(gains, DECIMALS)
        return answer

    def allowed(self, demand: Demand) -> BoolArray:
        """Return, by hardware number and GPU, whether the demand takes it; UNKNOWN finds none."""
        columns = self._columns
        width = columns.share.shape[1]
        allowed = np.zeros((len(columns.hardware_list) + 1, width), np.bool_)
        for number, hardware in enumerate(columns.hardware_list):
            allowed[number, : hardware.count] = [
                demand.takes(model, memory)
                for model, memory in zip(hardware.models, hardware.memory_mib, strict=True)
            ]
        return allowed
