"""The fake runtime on its socket: where a test starts it, and what it may do with containers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from tests.e2e.cri.books import KILLED, Books
from tests.e2e.cri.images import Images
from tests.e2e.cri.servicer import Runtime
from tests.e2e.cri.v1 import api_pb2_grpc as rpc
from tests.e2e.cri.views import ContainerView

# kubelet asks from a few goroutines at a time; nothing here waits for anything.
_THREADS: Final = 4
_STOP_SECONDS: Final = 1.0


class FakeRuntime:
    """A container runtime for one kubelet, served on the unix socket `socket`.

    It outlives kubelet, as a runtime does. No process is ever started. A container runs until
    kubelet stops it, or `crash` or `finish` ends it; one whose command is `true` or `false` has
    ended as soon as it is started, with 0 or 1.
    """

    def __init__(self, socket: Path) -> None:
        self._books = Books(time.time_ns)
        self._socket = socket
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Serve; return when a kubelet may dial. Raises OSError or RuntimeError if it cannot."""
        self._socket.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="cri"))
        rpc.add_RuntimeServiceServicer_to_server(Runtime(self._books), server)
        rpc.add_ImageServiceServicer_to_server(Images(self._socket.parent), server)
        server.add_insecure_port(f"unix:{self._socket}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """Serve no more; what was seen can still be asked for, and `start` goes on from there."""
        if self._server is not None:
            self._server.stop(_STOP_SECONDS).wait()
            self._server = None

    def containers(self) -> tuple[ContainerView, ...]:
        """Return every start of a container there ever was, oldest first."""
        return tuple(one.view() for one in self._books.history())

    def crash(self, namespace: str, pod: str, container: str) -> None:
        """Let a running container die as by SIGKILL. Raises UnknownIdError if none runs."""
        self._books.end(namespace, pod, container, KILLED)

    def finish(self, namespace: str, pod: str, container: str) -> None:
        """Let a running container end well, with 0. Raises UnknownIdError if none runs."""
        self._books.end(namespace, pod, container, 0)
