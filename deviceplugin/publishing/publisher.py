"""Publishes the node's topology and state as annotations of its Node. Work of one thread.

The thread pulls what is to be said when it is woken, so that nobody waits for it. It reads the
Node first, to go on from the generation that a former process reached, and looks at it from
time to time: a Node that was deleted and created again has lost its annotations.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import quote

import msgspec
import structlog

from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import FAILED, OK
from deviceplugin.publishing.outbox import Outbox
from deviceplugin.publishing.state import next_state
from runtime.depth import decode_shallow
from runtime.errors import ApiError, KubeError, UnreachableError
from runtime.objects import UNREADABLE, Node
from topology.errors import WireError
from topology.wire import STATE_KEY, TOPOLOGY_KEY, NodeState, decode_state, encode_state

_REFUSED: Final = frozenset([400, 403, 413, 422])

_NODE: Final = msgspec.json.Decoder(Node)
_log = structlog.get_logger("deviceplugin.publisher")


class NodeClient(Protocol):
    """The two calls on the own Node."""

    def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float) -> bytes:
        """Return the body; raises KubeError."""

    def patch(self, path: str, body: object, *, timeout: float) -> bytes:
        """Merge-patch; raises KubeError."""


def read_state(client: NodeClient, node_name: str, timeout: float) -> NodeState | None:
    """Return the state that the Node carries, None if it has none that can be read.

    Raises KubeError.
    """
    return _state_in(_annotations(client, node_name, timeout).get(STATE_KEY))


class Publisher:
    """Writes what `topology` and `state` return, until `stop`; None means nothing to say yet."""

    def __init__(
        self,
        *,
        client: NodeClient,
        node_name: str,
        topology: Callable[[], str | None],
        state: Callable[[], NodeState | None],
        metrics: Metrics,
        interval: float = 0.5,
        verify_seconds: float = 60.0,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._topology = topology
        self._state = state
        self._metrics = metrics
        self._verify_seconds = verify_seconds
        self._timeout = timeout
        self._clock = clock
        self._outbox = Outbox(interval)
        self._said: NodeState | None = None
        self._verify_at = float("-inf")
        self._failing = False
        self._away = False
        self._heard = threading.Event()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Say that something may have changed; never blocks."""
        self._wake.set()

    def server_answers(self) -> None:
        """Say that the API server has just been heard; never blocks.

        What waits because the server was away is written at once: until then the scheduler
        chooses by what was true before.
        """
        self._heard.set()
        self._wake.set()

    def stop(self) -> None:
        """Make `run` end. Nothing is cleared: what was said is still the best that is known."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Publish until `stop`."""
        while True:
            self._wake.clear()
            # After it: a stop in between would be slept over.
            if self._stopping.is_set():
                return
            self._wake.wait(self.step())

    def step(self) -> float:
        """Do what is due; return in how many seconds to come again unless woken."""
        now = self._clock()
        if self._heard.is_set():
            self._heard.clear()
            # A server that answers, but with an error, is not asked sooner because of that.
            if self._away:
                self._outbox.hurry()
        if self._failing and self._outbox.pause(now) > 0:
            return self._outbox.pause(now)
        try:
            if now >= self._verify_at:
                self._verify()
                self._verify_at = now + self._verify_seconds
            self._pull()
            if self._outbox.due(now) == 0:
                self._write()
        except KubeError as error:
            self._fail(error)
            return self._outbox.pause(self._clock())
        self._failing = self._away = False
        now = self._clock()
        due = self._outbox.due(now)
        rest = self._verify_at - now
        return max(0.0, rest if due is None else min(rest, due))

    def _verify(self) -> None:
        annotations = _annotations(self._client, self._node_name, self._timeout)
        text = annotations.get(STATE_KEY)
        self._outbox.found({key: annotations.get(key) for key in (TOPOLOGY_KEY, STATE_KEY)})
        there = _state_in(text)
        if there is None:
            return
        if self._said is None:
            self._said = there
        elif there.generation > self._said.generation:
            # Somebody else has written, perhaps a former process of ours that is still alive.
            self._said = msgspec.structs.replace(self._said, generation=there.generation + 1)

    def _pull(self) -> None:
        topology = self._topology()
        if topology is not None:
            self._outbox.offer(TOPOLOGY_KEY, topology)
        state = self._state()
        if state is not None:
            self._said = next_state(state, self._said) or self._said
        if state is not None and self._said is not None:
            self._outbox.offer(STATE_KEY, encode_state(self._said))

    def _write(self) -> None:
        values = self._outbox.pending()
        self._client.patch(
            _path(self._node_name), {"metadata": {"annotations": values}}, timeout=self._timeout
        )
        self._outbox.wrote(values, self._clock())
        self._metrics.writes.labels(OK).inc()
        _log.info("published", keys=sorted(values))

    def _fail(self, error: KubeError) -> None:
        now = self._clock()
        self._outbox.failed(now, refused=isinstance(error, ApiError) and error.status in _REFUSED)
        self._failing, self._away = True, isinstance(error, UnreachableError)
        # Whatever was lost with the server's answer is found again before the next write.
        self._verify_at = float("-inf")
        self._metrics.writes.labels(FAILED).inc()
        _log.warning("cannot publish", problem=str(error), pause=round(self._outbox.pause(now), 2))


def _path(node_name: str) -> str:
    return f"/api/v1/nodes/{quote(node_name)}"


def _annotations(client: NodeClient, node_name: str, timeout: float) -> dict[str, str]:
    try:
        node = decode_shallow(_NODE.decode, client.get(_path(node_name), timeout=timeout))
    except UNREADABLE as error:
        raise KubeError(f"node {node_name} does not read: {error}") from error
    return node.metadata.annotations or {}


def _state_in(text: str | None) -> NodeState | None:
    if text is None:
        return None
    try:
        return decode_state(text)
    except WireError as error:
        _log.warning("the state that the Node carries does not read", problem=str(error))
        return None
