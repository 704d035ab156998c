"""Which pod is tried next: active, backing off, or waiting for the cluster to change. Pure.

As kube-scheduler's queue: a refused pod waits until an event could help it. Then it rests for its
back-off only while others are to be tried: an idle scheduler takes it at once (from 1.33 on). So a
refusal that is an event itself makes a hot loop here as there. A pod whose try met an error rests
for its whole back-off. Times are seconds of any monotonic clock, given by the caller.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

from embedded.kube_scheduler.events import HELPS, Event, Plugin

# kube-scheduler flushes what was never woken after 5 minutes (its default in 1.36).
LEFTOVER_SECONDS: Final = 300.0


class Backoff(msgspec.Struct, frozen=True):
    """How long a pod rests after its n-th failed try: doubling seconds up to `maximum`."""

    initial: float = 1.0
    maximum: float = 10.0

    def delay(self, attempts: int) -> float:
        """Return the rest in seconds after this many failed tries.

        >>> [Backoff(1.0, 10.0).delay(n) for n in (1, 2, 3, 4, 5, 90)]
        [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        """
        return float(min(self.maximum, self.initial * 2 ** min(attempts - 1, 30)))


class Place(Enum):
    """Where a pod stands in the queue."""

    ACTIVE = "active"
    BACKOFF = "backoff"
    ERROR = "error back-off"
    UNSCHEDULABLE = "unschedulable"
    IN_FLIGHT = "in flight"


class _Entry:
    """One pod's standing."""

    def __init__(self, uid: str, priority: int) -> None:
        self.uid = uid
        self.priority = priority
        self.place = Place.ACTIVE
        self.attempts = 0
        self.ready_at = 0.0
        self.since = 0.0
        self.ticket = 0
        self.helped_by: frozenset[Event] = frozenset()
        self.missed: set[Event] = set()


class SchedulingQueue:
    """The pods that have no node yet, by UID. Not thread-safe: its owner holds a lock."""

    def __init__(self, backoff: Backoff = Backoff()) -> None:  # noqa: B008 -- a frozen value
        self._backoff = backoff
        self._entries: dict[str, _Entry] = {}
        # Heaps hold stale items too: an item counts only while its entry still has its ticket.
        self._active: list[tuple[float, int, str]] = []
        self._resting: list[tuple[float, int, str]] = []
        self._failing: list[tuple[float, int, str]] = []
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, uid: str) -> bool:
        return uid in self._entries

    def count(self, place: Place) -> int:
        """Return how many pods stand there."""
        return sum(entry.place is place for entry in self._entries.values())

    def add(self, uid: str, priority: int) -> None:
        """Take a new pod; one that is known already keeps its place."""
        if uid not in self._entries:
            entry = self._entries[uid] = _Entry(uid, priority)
            self._activate(entry)

    def forget(self, uid: str) -> None:
        """Drop a pod that was bound or deleted."""
        self._entries.pop(uid, None)

    def pop(self, now: float) -> str | None:
        """Take the next pod to try: highest priority, then longest active; None if none is due.

        If none is active, the one whose back-off ends first.
        """
        self._promote(now)
        for heap in (self._active, self._resting):
            while heap:
                _, ticket, uid = heapq.heappop(heap)
                entry = self._entries.get(uid)
                if entry is not None and entry.ticket == ticket:
                    entry.place = Place.IN_FLIGHT
                    entry.missed.clear()
                    return uid
        return None

    def refuse(self, uid: str, now: float, by: Iterable[Plugin]) -> None:
        """No node suits the pod in flight: it waits for an event that helps one who refused it.

        An event that came while it was tried counts: what it changed may have been missed.
        """
        entry = self._entries.get(uid)
        if entry is None:
            return
        entry.helped_by = frozenset().union(*(HELPS[plugin] for plugin in by))
        self._count(entry, now)
        if entry.missed & entry.helped_by:
            self._requeue(entry, Place.BACKOFF)
        else:
            entry.place = Place.UNSCHEDULABLE

    def fail(self, uid: str, now: float) -> None:
        """Note that trying the pod in flight met an error: it is due again after its back-off."""
        entry = self._entries.get(uid)
        if entry is not None:
            self._count(entry, now)
            self._requeue(entry, Place.ERROR)

    def wake(self, event: Event, uid: str | None = None) -> None:
        """Tell what has happened, to the cluster or to one waiting pod."""
        told = self._entries.values() if uid is None else (self._entries.get(uid),)
        for entry in told:
            if entry is None:
                continue
            if entry.place is Place.IN_FLIGHT:
                entry.missed.add(event)
            elif entry.place is Place.UNSCHEDULABLE and event in entry.helped_by:
                self._requeue(entry, Place.BACKOFF)

    def next_time(self) -> float | None:
        """Return when the next pod that met an error falls due; None if there is none."""
        while self._failing:
            when, ticket, uid = self._failing[0]
            entry = self._entries.get(uid)
            if entry is not None and entry.ticket == ticket:
                return when
            heapq.heappop(self._failing)
        return None

    @property
    def idle(self) -> bool:
        """Whether nothing would be tried however long one waited without an event."""
        return all(entry.place is Place.UNSCHEDULABLE for entry in self._entries.values())

    def _activate(self, entry: _Entry) -> None:
        self._tickets += 1
        entry.place, entry.ticket = Place.ACTIVE, self._tickets
        heapq.heappush(self._active, (-entry.priority, entry.ticket, entry.uid))

    def _count(self, entry: _Entry, now: float) -> None:
        entry.attempts += 1
        entry.since = now
        entry.ready_at = now + self._backoff.delay(entry.attempts)

    def _requeue(self, entry: _Entry, place: Place) -> None:
        self._tickets += 1
        entry.place, entry.ticket = place, self._tickets
        heap = self._resting if place is Place.BACKOFF else self._failing
        heapq.heappush(heap, (entry.ready_at, entry.ticket, entry.uid))

    def _promote(self, now: float) -> None:
        for entry in self._entries.values():
            stale = entry.place is Place.UNSCHEDULABLE and now - entry.since >= LEFTOVER_SECONDS
            if stale:
                self._activate(entry)
        for heap in (self._resting, self._failing):
            while heap and heap[0][0] <= now:
                _, ticket, uid = heapq.heappop(heap)
                entry_of = self._entries.get(uid)
                if entry_of is not None and entry_of.ticket == ticket:
                    self._activate(entry_of)
