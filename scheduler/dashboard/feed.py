"""What moves: looks at the cluster now and then, keeps how it went, and wakes those who watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

import structlog

from scheduler.dashboard.errors import CrowdedError
from scheduler.dashboard.history import History, Values
from scheduler.dashboard.views import SIZES
from scheduler.explain.desk import Desk
from scheduler.explain.fleet_shapes import ClusterAnswer, NodeLine
from scheduler.explain.record import Record
from scheduler.explain.unasked import WaitingPods

MEASURES: Final = (
    "unallocated",
    "wasted",
    "loss",
    "waiting",
    "placed",
    *(f"best {size}" for size in SIZES),
)

WATCHED_SECONDS: Final = 2.0
"""How often it looks while somebody watches."""

IDLE_SECONDS: Final = 10.0
"""How often it looks for the history alone."""

SHARE: Final = 0.05
"""The part of one core's time that looking may take: a huge cluster is looked at less often."""

WATCHERS: Final = 100
"""The most who may watch at a time; a browser's tab is one."""

ALIVE_SECONDS: Final = 15.0
"""Proxies close what is silent for longer."""

_log = structlog.get_logger("scheduler.dashboard")


class Feed:
    """Follows the cluster. `records` are the decisions kept, the newest first.

    `clock` gives Unix seconds. `name` makes our versions others than those of another process: a
    page that comes to it from there is then fetched anew.
    """

    def __init__(
        self,
        desk: Desk,
        records: Iterable[Record],
        waiting: WaitingPods,
        *,
        name: str = "",
        clock: Callable[[], float] = time.time,
        watched_seconds: float = WATCHED_SECONDS,
        alive_seconds: float = ALIVE_SECONDS,
    ) -> None:
        self.history = History(MEASURES)
        self.version = 0
        self._cluster: ClusterAnswer | None = None
        self._nodes: list[NodeLine] = []
        self._listed = 0.0
        self._desk = desk
        self._records = records
        self._waiting = waiting
        self._name = name
        self._clock = clock
        self._watched = watched_seconds
        self._alive = alive_seconds
        self._watchers: set[asyncio.Event] = set()
        self._came = asyncio.Event()
        self._over = False
        self._mark: object = None
        self._looked = 0.0

    async def run(self) -> None:
        """Look until cancelled; then those who watch are let go."""
        try:
            while True:
                await self._pause(await self._try_to_look())
        finally:
            self._over = True
            self._wake()

    async def look(self) -> ClusterAnswer:
        """Look once: take the measures, and wake the watchers if anything is different."""
        cluster = await self._desk.cluster()
        now = self._clock()
        if cluster.nodes:
            # Before the first list there is nothing, which is no measure.
            self.history.add(now, self._measure(cluster, now))
        self._looked, self._cluster = now, cluster
        newest = next(iter(self._records), None)
        last = None if newest is None else (newest.request.uid, newest.updated)
        mark = cluster, last, self._waiting.version
        if mark != self._mark:
            self._mark = mark
            self.version += 1
            self._wake()
        return cluster

    async def latest(self) -> ClusterAnswer:
        """Return the cluster as it was a moment ago: many pages cost one look."""
        age = self._clock() - self._looked
        if self._cluster is None or not 0 <= age < self._watched:
            return await self.look()
        return self._cluster

    async def nodes(self) -> list[NodeLine]:
        """Return all nodes as they were a moment ago: 5,000 cost 40 ms of the verbs' time."""
        if not 0 <= self._clock() - self._listed < self._watched:
            self._nodes = await self._desk.nodes()
            self._listed = self._clock()
        return self._nodes

    def admit(self) -> None:
        """Raise CrowdedError if too many watch."""
        if len(self._watchers) >= WATCHERS:
            raise CrowdedError(WATCHERS)

    def now(self) -> float:
        """Return the time by which ages are told, in Unix seconds."""
        return self._clock()

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events: one at once, then one for each change, until it is over."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        self._came.set()
        try:
            yield b"retry: 3000\n"
            while not self._over:
                version = f"{self._name}{self.version}"
                yield f"event: change\nid: {version}\ndata: {version}\n\n".encode()
                while not changed.is_set():
                    try:
                        await asyncio.wait_for(changed.wait(), self._alive)
                    except TimeoutError:
                        yield b": alive\n\n"
                changed.clear()
        finally:
            self._watchers.discard(changed)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    async def _try_to_look(self) -> float:
        """Look and return how many seconds it took. What goes wrong must not end the scheduler."""
        begun = time.perf_counter()
        try:
            await self.look()
        except Exception:  # noqa: BLE001 -- see above
            _log.exception("the cluster was not looked at")
            return 0.0
        return time.perf_counter() - begun

    async def _pause(self, took: float) -> None:
        rest = took / SHARE
        await asyncio.sleep(max(self._watched, rest))
        if not self._watchers:
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), IDLE_SECONDS - self._watched)

    def _measure(self, cluster: ClusterAnswer, now: float) -> Values:
        best = {one.size: one.bus_bandwidth_gbs for one in cluster.sizes}
        return (
            cluster.unallocated_pct,
            cluster.wasted_pct,
            100 * cluster.link_loss,
            len(self._waiting),
            self._placed(now),
            *(best.get(size, 0.0) for size in SIZES),
        )

    def _placed(self, now: float) -> float | None:
        """Return the mean bandwidth of the sets that were bound since the last look, in GB/s."""
        bandwidths = []
        for record in self._records:
            if record.updated < self._looked:
                break
            binding = record.binding
            if binding is not None and binding.at >= self._looked and binding.bus_bandwidth_gbs > 0:
                bandwidths.append(binding.bus_bandwidth_gbs)
        return sum(bandwidths) / len(bandwidths) if bandwidths and self._looked < now else None

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()
