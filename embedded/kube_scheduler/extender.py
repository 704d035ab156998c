"""kube-scheduler's side of the extender protocol: POST filter and bind, Go's field names.

As kube-scheduler 1.36 with nodeCacheCapable: node names only, 5 s for a call, any status but 200
is an error, and so is a node in the answer that was not asked about.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from embedded.errors import EmbeddedError
from embedded.kube_scheduler.events import Plugin
from embedded.kube_scheduler.filters import Refusal

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 5.0


class ExtenderError(EmbeddedError):
    """The extender could not be asked, or did not answer as it must."""


class FilterAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """ExtenderFilterResult, as far as a node-cache-capable extender fills it."""

    node_names: tuple[str, ...] | None = None
    failed_nodes: dict[str, str] | None = None
    failed_and_unresolvable_nodes: dict[str, str] | None = None
    error: str = ""

    def refusal_of(self, node: str) -> Refusal:
        """Return why a node that was not accepted was refused; omitted ones have no reason.

        Evictions are tried where it is among the `failed_nodes`.
        """
        lasting, passing = self.failed_and_unresolvable_nodes or {}, self.failed_nodes or {}
        text = lasting.get(node) or passing.get(node) or "node(s) were left out by the extender"
        return Refusal(text, Plugin.EXTENDER, resolvable=node in passing and node not in lasting)


class _BindAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    error: str = ""


class Extender:
    """The extender at a URL such as ``http://127.0.0.1:8888``; safe to share between threads."""

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()

    def filter(self, pod: object, names: Sequence[str]) -> FilterAnswer:
        """Ask which of the nodes can take the pod; raises ExtenderError."""
        answer = self._post("filter", {"Pod": pod, "Nodes": None, "NodeNames": names}, FilterAnswer)
        if answer.error:
            raise ExtenderError(f"filter: {answer.error}")
        stray = set(answer.node_names or ()) - set(names)
        if stray:
            raise ExtenderError(f"filter: the answer names {min(stray)}, which was not asked about")
        return answer

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Ask it to bind the pod; raises ExtenderError."""
        body = {"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node}
        answer = self._post("bind", body, _BindAnswer)
        if answer.error:
            raise ExtenderError(f"bind: {answer.error}")

    def close(self) -> None:
        """Close idle connections."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _post(self, verb: str, body: object, kind: type[T]) -> T:
        encoded = msgspec.json.encode(body)
        try:
            with self._connection() as connection:
                connection.request(
                    "POST",
                    f"{self._prefix}/{verb}",
                    encoded,
                    {"Content-Type": "application/json"},
                )
                answer = connection.getresponse()
                data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ExtenderError(f"{verb}: {str(error) or type(error).__name__}") from error
        if answer.status != 200:
            raise ExtenderError(f"{verb}: status {answer.status}")
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise ExtenderError(f"{verb}: unreadable answer: {error}") from None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        """Lend a kept connection, or a new one; one that failed is not kept."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)
