"""A gate on the way to the API server: open, shut, or silent. Of HTTP it knows one word.

The plugin reaches its API server through it, so a test may take the server away from the plugin
alone, while kubelet goes on hearing of pods.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final, Literal

Mode = Literal["open", "shut", "silent"]

_WATCH: Final = b"watch=true"
_CHUNK: Final = 1 << 16


class Gate:
    """Forwards TCP from a loopback port of its own to `target`.

    `shut` cuts all connections and every new one at once; `silent` takes them and forwards
    nothing. `hold_watches` keeps back what comes over watches, and nothing else.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._changed = threading.Condition()
        self._mode: Mode = "open"
        self._held = False
        self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, name="gate", daemon=True).start()

    def set(self, mode: Mode) -> None:
        """Change the mode. Connections from before do not survive a change, but in silence."""
        with self._changed:
            if mode == self._mode:
                return
            self._mode = mode
            if mode != "silent":
                self._cut()
            self._changed.notify_all()

    def hold_watches(self, held: bool) -> None:
        """Keep back what watches say, or let it go."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def close(self) -> None:
        """End everything."""
        with self._changed:
            self._closed = True
            self._mode = "shut"
            self._cut()
            self._changed.notify_all()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _cut(self) -> None:
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._changed:
                if self._mode == "shut":
                    near.close()
                    far.close()
                    continue
                self._pairs.add((near, far))
            watch = threading.Event()
            for source, sink, asks in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, asks, watch), name="gate", daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, asks: bool, watch: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if asks:
                    (watch.set if _WATCH in chunk else watch.clear)()
                self._pass(asks, watch)
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if not asks:
            with self._changed:
                self._pairs.discard((sink, source))
            source.close()
            sink.close()

    def _pass(self, asks: bool, watch: threading.Event) -> None:
        """Wait until a chunk may go on."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or (self._mode != "silent" and not (self._held and not asks and watch.is_set()))
                )
            )
