"""Sockets and HTTP servers of the extender: taken before anything starts, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette

from runtime.ops import OpsServer

BACKLOG: Final = 512


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
    """Take the port before anything is started. Raises OSError saying which."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def make_server(application: Starlette) -> Server:
    """Return a server for one application, as kube-scheduler's calls want it."""
    return Server(
        uvicorn.Config(
            application,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            # kube-scheduler keeps two idle connections; 5 s would close them under its calls.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )


def _taken(error: OSError, address: str) -> OSError:
    return OSError(f"{address}: {error.strerror or error}")
