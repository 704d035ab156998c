"""Decisions as Kubernetes Events on their pods, with a life of their own.

Nothing waits for an Event: decisions are put into a queue that may overflow, a task writes them at
a bounded rate, and a write that fails is counted and forgotten. Each Event says when its time is
over; the same task looks for such Events and deletes them, whoever wrote them: what a process that
is gone has left is found by its label.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import structlog

from runtime.depth import decode_shallow
from runtime.errors import KubeError, NotFoundError
from runtime.objects import UNREADABLE
from scheduler.explain.metrics import ExplainMetrics
from scheduler.explain.record import ChosenSet, Record
from scheduler.explain.views import show_set, show_strategies, show_time

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT: Final = "gputopo-extender"
EXPIRES_KEY: Final = "gputopo.dev/expires"
"""The label and the annotation that make an Event ours, and say until when it is wanted."""

LONGEST: Final = 1000
"""Characters of a message: the API server takes 1,024 bytes of a note, and we write ASCII."""

QUEUED: Final = 1000
STRATEGIES_TOLD: Final = 3
"""Best nodes that are told of each strategy."""

SWEEP_SECONDS: Final = 30.0
"""How often expired Events are looked for, at most a quarter of their life."""

_log = structlog.get_logger("scheduler.explain.events")


class EventsApi(Protocol):
    """The part of the API server's client that Events need."""

    async def post(self, path: str, body: object) -> bytes:
        """Create."""

    async def delete(self, path: str) -> bytes:
        """Delete."""

    def list_pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Read a list page by page."""


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Event(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


class _Page(msgspec.Struct, frozen=True):
    items: tuple[_Event, ...] = ()


_PAGE: Final = msgspec.json.Decoder(_Page)


class Events:
    """Writes Events about records for `lifetime` seconds, `rate` a second at most.

    `clock` gives Unix seconds. `offer` never waits and never fails.
    """

    def __init__(
        self,
        *,
        lifetime: float,
        rate: float,
        instance: str,
        clock: Callable[[], float],
        metrics: ExplainMetrics,
    ) -> None:
        self._lifetime = lifetime
        self._pause = 1 / rate
        self._instance = instance
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[Record] = deque()
        self._woken = asyncio.Event()

    def offer(self, record: Record) -> None:
        """Take a record to be written; the oldest is lost if too many wait."""
        if len(self._queue) >= QUEUED:
            self._queue.popleft()
            self._metrics.events["lost"].inc()
        self._queue.append(record)
        self._woken.set()

    async def run(self, api: EventsApi) -> None:
        """Write and delete until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(api), name="write events")
            group.create_task(self._sweep(api), name="delete events")

    async def _write(self, api: EventsApi) -> None:
        while True:
            await self._woken.wait()
            while self._queue:
                record = self._queue.popleft()
                body = self.describe(record)
                path = f"/api/v1/namespaces/{record.request.namespace}/events"
                try:
                    await api.post(path, body)
                except KubeError as error:
                    self._metrics.events["refused"].inc()
                    _log.warning("event refused", uid=record.request.uid, error=str(error))
                else:
                    self._metrics.events["written"].inc()
                await asyncio.sleep(self._pause)
            self._woken.clear()

    async def _sweep(self, api: EventsApi) -> None:
        while True:
            try:
                for path in await self._expired(api):
                    await self._delete(api, path)
                    await asyncio.sleep(self._pause)
            except (KubeError, *UNREADABLE) as error:
                _log.warning("cannot look for expired events", error=str(error))
            await asyncio.sleep(min(SWEEP_SECONDS, self._lifetime / 4))

    async def _expired(self, api: EventsApi) -> list[str]:
        now = show_time(self._clock())
        found = []
        query = {"labelSelector": f"{MANAGED_BY}={COMPONENT}"}
        async for page in api.list_pages("/api/v1/events", query):
            # Anybody who may write Events may give one our label.
            for event in decode_shallow(_PAGE.decode, page).items:
                meta = event.metadata
                # Times of one form compare as text.
                if (meta.annotations or {}).get(EXPIRES_KEY, "") <= now:
                    found.append(f"/api/v1/namespaces/{meta.namespace}/events/{meta.name}")
        return found

    async def _delete(self, api: EventsApi, path: str) -> None:
        try:
            await api.delete(path)
        except NotFoundError:
            return  # the other replica was faster
        except KubeError as error:
            _log.warning("event not deleted", path=path, error=str(error))
            return
        self._metrics.events["deleted"].inc()

    def describe(self, record: Record) -> dict[str, Any]:
        """Return the Event (core/v1) about a record."""
        now = self._clock()
        request = record.request
        placed = record.outcome == "bound"
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # Names of Events are the pod's and something that makes them one of a kind.
                "name": f"{request.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": request.namespace,
                "labels": {MANAGED_BY: COMPONENT},
                "annotations": {EXPIRES_KEY: show_time(now + self._lifetime)},
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": request.namespace,
                "name": request.name,
                "uid": request.uid,
            },
            "reason": "GpusPlaced" if placed else "GpusRefused",
            "message": describe(record),
            "type": "Normal" if placed else "Warning",
            "source": {"component": COMPONENT},
            "reportingComponent": "gputopo.dev/extender",
            "reportingInstance": self._instance,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }


def describe(record: Record) -> str:
    """Return a record in one line of at most `LONGEST` characters."""
    if record.outcome != "bound":
        return _cut(record.text)
    binding, verdict = record.binding, record.verdict
    if binding is None:
        return ""
    parts = [f"{binding.node}: {_set(record)}"]
    if verdict is not None and verdict.scores is not None:
        parts[0] += f", best of {verdict.accepted} of {verdict.considered} nodes"
        for line in show_strategies(record, STRATEGIES_TOLD):
            told = ", ".join(f"{host.host} {host.score:.1f}" for host in line.host_priority)
            parts.append(f"{line.strategy} x{line.weight:.2f}: {told}")
    return _cut("; ".join(parts))


def _set(record: Record) -> str:
    binding, verdict = record.binding, record.verdict
    options: tuple[ChosenSet, ...] = verdict.options if verdict is not None else ()
    for option in options:
        if binding is not None and option.node == binding.node and option.uuids:
            shown = show_set(option)
            gpus = ",".join(str(gpu.position) for gpu in shown.gpus)
            linked = f" ({shown.worst_link}, {shown.bus_bandwidth_gbs:g} GB/s)"
            return f"GPU {gpus}{linked if shown.worst_link is not None else ''}"
    count = sum(len(uuids) for uuids in binding.containers.values()) if binding is not None else 0
    return f"{count} GPUs" if count else "GPUs of kubelet's choice"


def _cut(text: str) -> str:
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
