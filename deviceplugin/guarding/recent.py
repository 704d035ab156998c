"""The last things that GPUs reported, for people who look."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

KEPT: Final = 64
"""Enough for a look back; an XID storm of one GPU must not grow the process."""


class Report(msgspec.Struct, frozen=True):
    """An event of a GPU: `at` in seconds since 1970, what it was, and what it did.

    `kind` is xid, ecc or mig; `xid` the number, 0 for others. `devices` are the uuids that it hit.
    """

    at: float
    uuid: str
    kind: str
    what: str
    response: str
    xid: int = 0
    devices: tuple[str, ...] = ()


class Recent:
    """Keeps the newest reports, the oldest first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reports: deque[Report] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def add(
        self,
        uuid: str,
        kind: str,
        what: str,
        response: str,
        *,
        xid: int = 0,
        devices: tuple[str, ...] = (),
    ) -> None:
        """Note an event that happens now."""
        report = Report(self._clock(), uuid, kind, what, response, xid, devices)
        with self._lock:
            self._reports.append(report)

    def read(self) -> tuple[Report, ...]:
        """Return what is kept."""
        with self._lock:
            return tuple(self._reports)
