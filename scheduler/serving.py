"""Sockets and HTTP servers of the extender: taken before anything starts, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.ops import OpsServer, family_of
from scheduler.explain.access import is_own
from scheduler.explain.pace import Pace

BACKLOG: Final = 512

MOST_CONNECTIONS: Final = 256
"""Of strangers; a hundred pages may follow the cluster, each a connection."""

HEAD_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 5
MOST_HEAD_BYTES: Final = 512 << 10
"""Nothing else bounds a head; what is read at once, 256 kB, may have a body in it too."""


@contextlib.contextmanager
def serve_probes(ops: OpsServer, address: str) -> Iterator[None]:
    """Serve metrics and probes. Raises OSError saying which address is not to be had."""
    try:
        ops.start()
    except OSError as error:
        raise _taken(error, address) from None
    try:
        yield
    finally:
        ops.stop()


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is started; ``::`` is every address of both families.

    Raises OSError saying which.
    """
    host, family = family_of(host)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _taken(error, f"{host}:{port}") from None
    listener.setblocking(False)
    return listener


async def serve(server: Server, listener: socket.socket) -> None:
    """Serve until cancelled, then let the calls under way finish."""
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: runtime.lifecycle owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Wary(HttpToolsProtocol):
    """A connection of somebody unknown, who must not use up what the verbs need.

    There are so many of them at a time, and more by the loopback alone: strangers must not keep
    kubectl port-forward out. Each says within seconds what it wants, and in a few words.
    """

    head_seconds = HEAD_SECONDS
    _hurry: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or end it at once if there are too many."""
        super().connection_made(transport)
        near = self.client is not None and is_own(self.client[0])
        if len(self.connections) > MOST_CONNECTIONS and not near:
            transport.abort()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was sent, unless a head does not come to its end."""
        self._head += len(data)
        if self._hurry is not None and self._head > MOST_HEAD_BYTES:
            self.transport.abort()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin with a head."""
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End with a head."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head = 0
        self._hurry = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None


def make_wary_server(application: ASGIApp) -> Server:
    """Return a server for whoever reaches it."""
    return make_server(Pace(time.monotonic).over(application), Wary, idle=IDLE_SECONDS)


def make_server(
    application: ASGIApp,
    protocol: type[asyncio.Protocol] = HttpToolsProtocol,
    *,
    # kube-scheduler keeps two idle connections; 5 s would close them under its calls.
    idle: int = 75,
) -> Server:
    """Return a server for one application, as kube-scheduler's calls want it.

    A connection on which nothing is asked is kept for `idle` seconds.
    """
    return Server(
        uvicorn.Config(
            application,
            loop="none",
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=idle,
            timeout_graceful_shutdown=5,
        )
    )


def _taken(error: OSError, address: str) -> OSError:
    return OSError(f"{address}: {error.strerror or error}")
