"""What happened on a node, in order: for tests, for the demo's summary, and for people."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import msgspec

What = Literal[
    "started",  # the kubelet process serves its sockets
    "stopped",
    "registered",  # Register was answered well
    "refused",  # Register was refused
    "listed",  # a device list was taken over
    "disconnected",  # all devices of the resource became unhealthy
    "asked",  # GetPreferredAllocation was called
    "allocated",  # Allocate was answered well
    "admitted",
    "rejected",
    "container-started",
    "container-ended",
    "finished",  # the pod has ended by itself
    "forgotten",  # the pod was deleted
    "trouble",  # something that kubelet survives and a person should know
]


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened; `time` is in seconds of the kubelet's clock.

    `subject` is a pod's ``namespace/name`` or a resource, `detail` the reason or the devices.
    """

    time: float
    what: What
    subject: str
    detail: str = ""


class Journal:
    """An append-only record, safe to share between threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def note(self, what: What, subject: str, detail: str = "") -> None:
        """Add an entry."""
        with self._lock:
            self._entries.append(Entry(self._clock(), what, subject, detail))

    def entries(self, what: What | None = None, subject: str | None = None) -> tuple[Entry, ...]:
        """Return what was noted so far, all of it or by kind and subject."""
        with self._lock:
            noted = tuple(self._entries)
        return tuple(
            entry
            for entry in noted
            if what in (None, entry.what) and subject in (None, entry.subject)
        )
