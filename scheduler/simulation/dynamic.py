"""A replay in which tasks depart: arrivals and lives by the trace's times, and a queue.

A list asks for few GPUs at once: openb's default one for 40 in its last month, in which nearly all
of its tasks arrive. So that month is replayed several times over at once, each copy shifted by a
random part of it and wrapped around its end, on a random part of the nodes that fits what the
copies ask for. A task that finds no room waits; whenever another departs, the longest waiting one
that fits is placed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.simulation.cluster import Cluster, View
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.placers import Placement, Placer
from traces.openb import Node, Task, TaskClass

SPARSE_PART: Final = 0.05
"""The part of the tasks, the first to arrive, that is left out: in openb they take four months."""


class Stay(msgspec.Struct, frozen=True):
    """A task that arrives, in seconds from the start, and stays so long once it is placed."""

    arrives: float
    life: float
    kind: TaskClass


class Stream(msgspec.Struct, frozen=True):
    """What arrives in a span of seconds, in order."""

    stays: Sequence[Stay]
    span: float

    @property
    def mean_gpus(self) -> float:
        """The GPUs in use on average if nobody ever waited."""
        return self.ideal_seconds / self.span

    @property
    def ideal_seconds(self) -> float:
        """GPU seconds within the span if nobody ever waited."""
        return sum(
            stay.kind.gpu_milli / 1000 * min(stay.life, self.span - stay.arrives)
            for stay in self.stays
        )


class Departures(msgspec.Struct, frozen=True):
    """A run's figures.

    `lost_pct` is the GPU time that was not allocated because tasks waited, in percent of what
    would have been without waiting. Waits are in seconds; a task that was still waiting at the
    end counts with what it had waited. `impossible` tasks fit no node of the part even when it
    is empty, and were left out.
    """

    tasks: int
    impossible: int
    waited_pct: float
    mean_wait_seconds: float
    p95_wait_seconds: float
    p99_wait_seconds: float
    multi_gpu_wait_seconds: float
    lost_pct: float
    unfinished: int
    bandwidth_gbs: dict[str, float] = {}


def make_stream(tasks: Sequence[Task], copies: int, dice: np.random.Generator) -> Stream:
    """Return the arrivals of so many copies. Raises ReplayError if the list has no times."""
    timed = [(task.times, task.kind) for task in tasks if task.times is not None]
    if not timed:
        raise ReplayError("no task of the list has times, so none can depart")
    created = np.array([times.created for times, _ in timed])
    first = float(np.percentile(created, 100 * SPARSE_PART))
    # A second beyond the last arrival: a span is never empty, and wrapping keeps all within it.
    span = float(created.max()) - first + 1.0
    stays = [
        Stay((times.created - first + shift) % span, times.life, kind)
        for shift in dice.uniform(0, span, copies).tolist()
        for times, kind in timed
        if times.created >= first
    ]
    stays.sort(key=lambda stay: stay.arrives)
    return Stream(stays, span)


def choose_nodes(nodes: Sequence[Node], stream: Stream, load: float) -> list[Node]:
    """Return the first of these nodes that have the GPUs for `load` to be their mean use.

    Raises ReplayError if all together have too few.
    """
    wanted = stream.mean_gpus / load
    chosen = []
    for node in nodes:
        if wanted <= 0:
            break
        chosen.append(node)
        wanted -= node.gpus
    if wanted > 0 or not chosen:
        raise ReplayError(
            f"the list's copies ask for {stream.mean_gpus:.0f} GPUs on average: "
            f"too many for these nodes at a load of {load:g}"
        )
    return chosen


def keep_possible(stream: Stream, cluster: Cluster) -> tuple[Stream, int]:
    """Return the stream without tasks that no node of the empty cluster takes, and their number."""
    everywhere = View(cluster, np.arange(len(cluster)))
    kinds = {stay.kind for stay in stream.stays}
    possible = {kind for kind in kinds if everywhere.feasible(kind).any()}
    kept = [stay for stay in stream.stays if stay.kind in possible]
    return Stream(kept, stream.span), len(stream.stays) - len(kept)


_NEVER: Final = -1.0


class _Queue:
    """Who waits, by class in the order of arrival; a class whose first does not fit waits whole."""

    def __init__(self, stays: Sequence[Stay]) -> None:
        self._stays = stays
        self._waiting: dict[TaskClass, deque[int]] = {}

    def holds(self, kind: TaskClass) -> bool:
        return kind in self._waiting

    def join(self, at: int) -> None:
        self._waiting.setdefault(self._stays[at].kind, deque()).append(at)

    def first_that_fits(self, cluster: Cluster, row: int) -> int | None:
        """Return who has waited longest of those that this node can take."""
        fitting = [line[0] for kind, line in self._waiting.items() if cluster.fits(row, kind)]
        return min(fitting, default=None)

    def leave(self, at: int) -> None:
        kind = self._stays[at].kind
        line = self._waiting[kind]
        line.popleft()
        if not line:
            del self._waiting[kind]


def run_stream(
    cluster: Cluster, stream: Stream, placer: Placer, *, impossible: int = 0, linked: bool = False
) -> Departures:
    """Let the stream come and go; `cluster` is used up."""
    stays = stream.stays
    begun = np.full(len(stays), _NEVER)
    bandwidth = np.zeros(len(stays))
    queue = _Queue(stays)
    leaving: list[tuple[float, int, Placement]] = []

    def start(at: int, now: float) -> bool:
        placement = placer.place(stays[at].kind)
        if placement is None:
            return False
        begun[at] = now
        bandwidth[at] = placement.bus_bandwidth_gbs
        heapq.heappush(leaving, (now + stays[at].life, at, placement))
        return True

    def depart_until(now: float) -> None:
        while leaving and leaving[0][0] <= now:
            then, at, placement = heapq.heappop(leaving)
            placer.give_back(placement, stays[at].kind)
            while (first := queue.first_that_fits(cluster, placement.row)) is not None:
                if not start(first, then):
                    break
                queue.leave(first)

    for at, stay in enumerate(stays):
        depart_until(stay.arrives)
        # Nothing fits a class that waits already: rooms grow by departures alone.
        if queue.holds(stay.kind) or not start(at, stay.arrives):
            queue.join(at)
    depart_until(stream.span)
    return _sum_up(stream, begun, bandwidth, impossible=impossible, linked=linked)


def _sum_up(
    stream: Stream, begun: FloatArray, bandwidth: FloatArray, *, impossible: int, linked: bool
) -> Departures:
    arrived = np.array([stay.arrives for stay in stream.stays])
    life = np.array([stay.life for stay in stream.stays])
    gpus = np.array([stay.kind.gpus for stay in stream.stays])
    milli = np.array([stay.kind.gpu_milli for stay in stream.stays], np.float64)
    ran = begun != _NEVER
    waits = np.where(ran, begun, stream.span) - arrived
    used = np.where(ran, np.minimum(life, stream.span - begun), 0) * milli / 1000
    ideal = stream.ideal_seconds
    several = gpus > 1

    def mean(values: FloatArray) -> float:
        return round(float(values.mean()), 3) if len(values) else 0.0

    groups = {str(size): ran & (gpus == size) for size in np.unique(gpus[several]).tolist()}
    groups["all"] = ran & several
    return Departures(
        tasks=len(waits),
        impossible=impossible,
        waited_pct=round(100 * mean((waits > 0).astype(np.float64)), 3),
        mean_wait_seconds=mean(waits),
        p95_wait_seconds=round(float(np.percentile(waits, 95)), 1),
        p99_wait_seconds=round(float(np.percentile(waits, 99)), 1),
        multi_gpu_wait_seconds=mean(waits[several]),
        lost_pct=round(100 * (1 - float(used.sum()) / ideal), 4) if ideal else 0.0,
        unfinished=int((~ran).sum()),
        bandwidth_gbs={
            name: mean(bandwidth[chosen]) for name, chosen in groups.items() if chosen.any()
        }
        if linked
        else {},
    )
