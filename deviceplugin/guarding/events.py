"""Tells Kubernetes what happens to GPUs: Events of the Node. Work of one thread.

Events are news, not state: what cannot be written soon is dropped and counted, and a storm is
thinned, so that a GPU that flaps costs the API server next to nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec
import structlog

from deviceplugin.guarding.happenings import Happening
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import FAILED, OK
from runtime.errors import ApiError, KubeError, NotFoundError

NAMESPACE: Final = "default"
"""Where Kubernetes keeps the Events of what has no namespace."""
PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/events"
COMPONENT: Final = "gputopo-device-plugin"

BURST: Final = 25
"""Events at once; afterwards one every `EVERY` seconds, as kubelet's own are thinned."""
EVERY: Final = 12.0
QUEUED: Final = 128
SAME: Final = 600.0
"""Seconds within which an Event that says the same again is counted, not written anew."""
FORBIDDEN_PAUSE: Final = 600.0
RETRIES: Final = 3

_log = structlog.get_logger("deviceplugin.events")


class EventClient(Protocol):
    """The two calls on Events."""

    def post(self, path: str, body: object, *, timeout: float) -> bytes:
        """Create; raises KubeError."""

    def patch(self, path: str, body: object, *, timeout: float) -> bytes:
        """Merge-patch; raises KubeError."""


class _Written(msgspec.Struct):
    name: str
    count: int
    at: float


class EventWriter:
    """Writes happenings until `stop`. `tell` is called by any thread and never blocks."""

    def __init__(
        self,
        client: EventClient,
        node_name: str,
        metrics: Metrics,
        *,
        timeout: float = 5.0,
        pause: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._metrics = metrics
        self._timeout = timeout
        self._pause = pause
        self._clock = clock
        self._wall = wall
        self._queue: deque[Happening] = deque()
        self._written: dict[str, _Written] = {}
        self._tokens = float(BURST)
        self._filled = clock()
        self._silent_until = float("-inf")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def tell(self, happenings: tuple[Happening, ...]) -> None:
        """Take what has happened."""
        with self._lock:
            for happening in happenings:
                if len(self._queue) >= QUEUED:
                    self._metrics.events.labels("dropped").inc()
                else:
                    self._queue.append(happening)
        if happenings:
            self._wake.set()

    def stop(self) -> None:
        """Make `run` end; what waits is dropped."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Write until `stop`."""
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._stopping.is_set() and (happening := self._next()) is not None:
                self.write(happening)

    def _next(self) -> Happening | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def write(self, happening: Happening) -> bool:
        """Write one; False if it was dropped."""
        if self._clock() < self._silent_until or not self._take_token():
            self._metrics.events.labels("dropped").inc()
            return False
        for attempt in range(RETRIES):
            try:
                self._send(happening)
            except KubeError as error:
                if self._refuses(error) or attempt == RETRIES - 1:
                    break
                self._stopping.wait(self._pause)
            else:
                self._metrics.events.labels(OK).inc()
                return True
        self._metrics.events.labels(FAILED).inc()
        return False

    def _take_token(self) -> bool:
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) / EVERY)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refuses(self, error: KubeError) -> bool:
        """Return whether it makes no sense to try again; without the right to, not for a while."""
        if not isinstance(error, ApiError):
            return False
        if error.status == 403:
            _log.warning("Events of the Node cannot be written", problem=str(error))
            self._silent_until = self._clock() + FORBIDDEN_PAUSE
        return 400 <= error.status < 500 and error.status != 429

    def _send(self, happening: Happening) -> None:
        now = self._wall()
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = f"{happening.reason}/{happening.about}/{happening.message}"
        before = self._written.get(key)
        if before is not None and self._clock() - before.at < SAME:
            body = {"count": before.count + 1, "lastTimestamp": stamp}
            try:
                self._client.patch(f"{PATH}/{before.name}", body, timeout=self._timeout)
            except NotFoundError:  # it has lived its hour
                pass
            else:
                before.count += 1
                return
        name = self._name(key, now)
        self._client.post(PATH, self._body(happening, name, stamp), timeout=self._timeout)
        self._forget()
        self._written[key] = _Written(name, 1, self._clock())

    def _forget(self) -> None:
        now = self._clock()
        self._written = {key: one for key, one in self._written.items() if now - one.at < SAME}

    def _name(self, key: str, now: float) -> str:
        # As client-go makes them: the object, then what is different for each.
        digest = hashlib.sha256(f"{key}/{now}".encode()).hexdigest()[:16]
        return f"{self._node_name}.{digest}"

    def _body(self, happening: Happening, name: str, stamp: str) -> Mapping[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            # kubelet's Events name the node in place of its uid, and kubectl looks for both.
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Node",
                "name": self._node_name,
                "uid": self._node_name,
            },
            "reason": happening.reason,
            "message": happening.message,
            "type": "Warning" if happening.warning else "Normal",
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
