"""Serving gRPC on a unix socket the way kubelet's sockets behave: the file outlives the process."""

from __future__ import annotations

import contextlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

UNIX_PATH_LIMIT = 107
"""Bytes of a unix socket's path on Linux, without the closing zero."""


class SocketServer:
    """A gRPC server on one socket file.

    gRPC removes the file that it bound when it shuts down, at a time of its own. So it binds
    another name, and `path` is a second link to it: a killed kubelet's socket stays as a dead
    file, and a new kubelet's socket is never removed by an old server. Raises OSError for a path
    that is too long for a socket.
    """

    def __init__(
        self,
        path: Path,
        *,
        workers: int,
        name: str,
        interceptors: tuple[grpc.ServerInterceptor, ...] = (),
    ) -> None:
        # Outside the directory that plugins watch: they must see one new name, not two.
        self._bound = path.parent.parent / f".{path.parent.name}{os.urandom(3).hex()}"
        if max(len(os.fsencode(path)), len(os.fsencode(self._bound))) > UNIX_PATH_LIMIT:
            raise OSError(f"{path}: a unix socket's path has at most {UNIX_PATH_LIMIT} bytes")
        self._path = path
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self.grpc = grpc.server(self._pool, interceptors=list(interceptors))

    def start(self) -> None:
        """Serve, then let the socket appear under its name in one step (inotify: create)."""
        self.grpc.add_insecure_port(f"unix:{self._bound}")
        self.grpc.start()
        remove(self._path)
        os.link(self._bound, self._path)
        remove(self._bound)

    def stop(self) -> None:
        """End all calls now. The file stays, as after a kill."""
        self.grpc.stop(None).wait()
        self._pool.shutdown(wait=False)


def wipe_sockets(directory: Path) -> tuple[str, ...]:
    """Delete every socket of a directory, nothing else; return their names."""
    wiped = []
    for entry in sorted(directory.iterdir()):
        if stat.S_ISSOCK(entry.lstat().st_mode):
            remove(entry)
            wiped.append(entry.name)
    return tuple(wiped)


def remove(path: Path) -> None:
    """Delete a file that may be gone."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
