"""What the main thread of a daemon waits at: rung by other threads and by every signal.

A wait at a lock or a queue can miss a signal: it ends only if the kernel gives the signal to that
very thread, and not in the moment before it lies down. 5 of 6,000 signals were missed so beside
three busy threads, and heard when the next one came. Python writes a byte for each signal, in
whichever thread it arrives, to a descriptor of our choice; a byte stays until it is read.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import weakref


class Bell:
    """Rung once or often, it ends one `wait`. Any thread may ring, also in a signal handler."""

    def __init__(self) -> None:
        self._heard, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._heard, select.POLLIN)
        # Not sooner: a thread that is late to ring must not write into what has the number then.
        weakref.finalize(self, _close, self._heard, self._rope)

    def ring(self) -> None:
        """End the wait that is under way, or the next one; never blocks."""
        with contextlib.suppress(BlockingIOError):  # full: there is more than enough to hear
            os.write(self._rope, b"\0")

    def hear_signals(self) -> None:
        """Let every signal that has a handler ring. Main thread only."""
        signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)
        # Of two finalizers the younger runs first: no signal writes to what is closed.
        weakref.finalize(self, _forget_signals)

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung; False when so many seconds passed before. One thread waits."""
        patience = None if math.isinf(seconds) else max(0, math.ceil(seconds * 1000))
        if not self._poll.poll(patience):
            return False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._heard, 4096):
                pass
        return True


def _forget_signals() -> None:
    with contextlib.suppress(ValueError):  # another thread may be the last that knew the bell
        signal.set_wakeup_fd(-1)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
