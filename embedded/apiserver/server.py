"""The embedded API server as a thread: real HTTP on a loopback port, the store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
import uvloop

from embedded.apiserver.api import Api
from embedded.apiserver.http import App
from embedded.apiserver.resources import NAMESPACES, Target
from embedded.apiserver.store import HISTORY, Store
from embedded.apiserver.watches import Bell

START_DEADLINE = 10.0
"""Seconds for the listener to come up or go down; a hundredth of it is usual."""

_HOST = "127.0.0.1"
_log = structlog.get_logger("embedded.apiserver")


class ApiServer:
    """An API server for one process and its children.

    `store` may be read and `api` be used from any thread of this process; what they hand out
    must not be changed. `rng` makes uids and generated names repeatable.
    """

    def __init__(
        self,
        *,
        bookmark_seconds: float = 10.0,
        history: int = HISTORY,
        rng: random.Random | None = None,
        now: Callable[[], str] | None = None,
    ) -> None:
        self.store = Store(history)
        self.api = Api(
            self.store,
            now=now or _utc_now,
            rng=rng or random.Random(),  # noqa: S311 -- identities, no secrets
        )
        self._bookmark_seconds = bookmark_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._app: App | None = None
        self._reserved: socket.socket | None = None
        self._port = 0
        self._listener: _Listener | None = None

    @property
    def url(self) -> str:
        """Where it listens, and will listen again after `come_back`."""
        return f"http://{_HOST}:{self._port}"

    def start(self, port: int = 0) -> str:
        """Listen on a loopback port, 0 for a free one, and return the URL.

        Raises OSError when the port is taken.
        """
        if self._thread is not None:
            raise RuntimeError("the API server is running")
        # A second socket holds the port while we are away: nobody else is given it, and a
        # client that knocks is refused, instead of connecting to itself by chance.
        self._reserved = _bound(port)
        self._port = self._reserved.getsockname()[1]
        for name in ("default", "kube-system"):
            if self.store.get(NAMESPACES.key, "", name) is None:
                self.api.create(Target(NAMESPACES), {"metadata": {"name": name}})
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="apiserver", daemon=True)
        self._thread.start()
        bell = Bell(self._loop)
        self.store.subscribe(bell.ring)
        self._app = App(self.api, bell, bookmark_seconds=self._bookmark_seconds)
        self.come_back()
        return self.url

    def stop(self) -> None:
        """Close everything; may be called twice."""
        if self._thread is None or self._loop is None:
            return
        self.go_away()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_DEADLINE)
        self._thread = self._loop = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def go_away(self) -> None:
        """Stop listening and cut all connections, in the middle of a line if need be."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._call(listener.close)
            _log.info("away", url=self.url)

    def come_back(self) -> None:
        """Listen again on the same port, with all that was stored."""
        if self._listener is not None or self._app is None:
            return
        listener = _Listener(self._app, _bound(self._port))
        self._call(listener.open)
        self._listener = listener
        _log.info("listening", url=self.url)

    def compact(self) -> None:
        """Forget history: a watch or a paged list from before is answered with 410."""
        self.store.compact()

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here, and return its path."""
        name = "embedded"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": "embedded"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        path.write_bytes(msgspec.yaml.encode(config))
        return path

    def _run(self) -> None:
        loop = self._loop
        if loop is None:
            return
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _call(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is None:
            raise RuntimeError("the API server is not running")
        asyncio.run_coroutine_threadsafe(run(), self._loop).result(START_DEADLINE)


class _Server(uvicorn.Server):
    """uvicorn without hands on the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Listener:
    """One presence of the server on its port."""

    def __init__(self, app: App, sock: socket.socket) -> None:
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                http="httptools",
                ws="none",
                proxy_headers=False,
                server_header=False,
                date_header=False,
                # Longer than any client keeps an idle connection that it means to use again.
                timeout_keep_alive=120,
                backlog=1024,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen; return when connections are taken."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise RuntimeError("the listener ended while it started")
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Close the listener, cut the connections and wait until all requests have ended."""
        server = self._server
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = server.force_exit = True
        if self._serving is not None:
            await self._serving
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((_HOST, port))
    except OSError:
        sock.close()
        raise
    return sock


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
