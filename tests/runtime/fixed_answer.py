"""A server with one answer, for what a well-behaved one never does."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path


class FixedAnswer:
    """A server that answers every connection with the same bytes, then closes or hangs."""

    def __init__(self, answer: bytes, *, hang: bool) -> None:
        self._answer = answer
        self._hang = hang
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.connections = 0
        self.asked: list[bytes] = []
        self.port = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._sock.accept()
                self.connections += 1
                self.asked.append(peer.recv(65536))
                peer.sendall(self._answer)
                if self._hang:
                    self._open.append(peer)
                else:
                    peer.close()

    def kubeconfig(self, path: Path) -> str:
        """Write a kubeconfig that leads here."""
        server = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        config = {"clusters": [server], "contexts": [context], "current-context": "c"}
        path.write_text(json.dumps({**config, "users": [{"name": "u", "user": {}}]}))
        return str(path)

    def close(self) -> None:
        """Stop."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)
        for peer in self._open:
            peer.close()
