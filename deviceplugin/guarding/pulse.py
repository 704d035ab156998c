"""Whether the thread that speaks to NVML still moves, and what is done when it does not.

A call of NVML can hang for ever, in the driver. Nothing can end it but the end of the process; but
others can be told of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from deviceplugin.resources.inventory import Board

EVERYBODY_AFTER: Final = 3.0
"""Times the patience: then no GPU can be watched any more, and the process asks to be restarted."""

_log = structlog.get_logger("deviceplugin.pulse")


class Beat(msgspec.Struct, frozen=True):
    """When the thread last moved, what it went on to do, and with which GPU ("" for none)."""

    at: float
    doing: str
    uuid: str = ""


class Pulse:
    """Written by one thread before each step, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = Beat(clock(), "start")

    @property
    def last(self) -> Beat:
        """The newest beat."""
        return self._last

    def beat(self, doing: str, uuid: str = "") -> None:
        """Say that the step before is done and what comes now."""
        self._last = Beat(self._clock(), doing, uuid)

    def silence(self) -> float:
        """Return for how many seconds nothing has moved."""
        return self._clock() - self._last.at


class Watchdog:
    """Tells the board when NVML hangs, until `stopping` is set.

    After `patience` seconds the GPU that is being asked is unhealthy; after three times as many
    all are, since nobody watches them, and `problem` tells it to the liveness probe: a new process
    is the only cure. When the thread moves again all that is taken back.
    """

    def __init__(
        self, pulse: Pulse, board: Board, *, patience: float, stopping: threading.Event
    ) -> None:
        self._pulse = pulse
        self._board = board
        self._patience = patience
        self._stopping = stopping
        self._told = ""

    @property
    def problem(self) -> str | None:
        """What hangs, for so long that nobody can be watched; None while all is well."""
        if self._pulse.silence() < self._patience * EVERYBODY_AFTER:
            return None
        return f"NVML hangs: {self._pulse.last.doing}"

    def run(self) -> None:
        """Look until `stopping`."""
        while not self._stopping.wait(min(1.0, self._patience / 4)):
            self.look()

    def look(self) -> None:
        """Look once."""
        silence, last = self._pulse.silence(), self._pulse.last
        if silence < self._patience:
            if self._told:
                _log.warning("NVML answers again", after=self._told)
                self._told = ""
            self._board.silence(None)
            return
        reason = f"NVML hangs: {last.doing}"
        if self._told != reason:
            _log.error("NVML does not answer", doing=last.doing, uuid=last.uuid)
            self._told = reason
        everybody = silence >= self._patience * EVERYBODY_AFTER or not last.uuid
        self._board.silence(reason, None if everybody else last.uuid)
