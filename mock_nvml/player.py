"""Plays a fault script against a machine, by the clock, in a thread."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from mock_nvml.errors import FaultError
from mock_nvml.faults import Fault, read_script
from mock_nvml.state import MachineState

_LOG: Final = logging.getLogger(__name__)
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at the script's time stamp."""


class FaultPlayer:
    """Lets each fault of a script happen at its time, once.

    The script is read again when its file changes: entries that are new happen at their time, at
    once if that has passed. A script that has become malformed changes nothing; `problem` says what
    is wrong with it.
    """

    def __init__(self, state: MachineState, script: Path) -> None:
        self.problem: FaultError | None = None
        self._state = state
        self._script = script
        self._stamp = self._look()
        self._faults: tuple[Fault, ...] = read_script(script, state.machine)
        self._done: set[tuple[int, Fault]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, name="mock-faults", daemon=True)
        self._start = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the play; faults that have happened stay."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _play(self) -> None:
        while not self._stop.is_set():
            self._read_again()
            elapsed = time.monotonic() - self._start
            for at, fault in sorted(enumerate(self._faults), key=lambda one: (one[1].at, one[0])):
                if fault.at <= elapsed and (at, fault) not in self._done:
                    self._done.add((at, fault))
                    self._state.apply(fault)
            due = (
                fault.at - elapsed
                for at, fault in enumerate(self._faults)
                if (at, fault) not in self._done
            )
            self._stop.wait(min(_LOOK_AGAIN, max(min(due, default=_LOOK_AGAIN), 0.0)))

    def _look(self) -> tuple[int, int, int]:
        """Return what changes when the file does: also when it is replaced, or within a tick."""
        try:
            found = self._script.stat()
        except OSError:
            return 0, 0, 0
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read_again(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._faults = read_script(self._script, self._state.machine)
            self.problem = None
        except FaultError as error:
            self.problem = error
            _LOG.warning("fault script ignored until it is mended: %s", error)
