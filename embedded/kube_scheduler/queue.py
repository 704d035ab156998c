"""Which pod is tried next: active, backing off, or waiting for the cluster to change. Pure.

As kube-scheduler's queue: a refused pod waits until an event could help it, and even then not
before its back-off has passed. So a cluster that writes many events costs each waiting pod one
try per back-off, never a hot loop. Times are seconds of any monotonic clock, given by the caller.
"""

from __future__ import annotations

import heapq
from enum import Enum
from typing import Final

import msgspec

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
        self.events_seen = 0
        self.ticket = 0


class SchedulingQueue:
    """The pods that have no node yet, by UID. Not thread-safe: its owner holds a lock."""

    def __init__(self, backoff: Backoff = Backoff()) -> None:  # noqa: B008 -- a frozen value
        self._backoff = backoff
        self._entries: dict[str, _Entry] = {}
        # Heaps hold stale items too: an item counts only while its entry still has its ticket.
        self._active: list[tuple[int, int, str]] = []
        self._resting: list[tuple[float, int, str]] = []
        self._events = 0
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
        """Take the next pod to try: highest priority, then longest active; None if none is due."""
        self._promote(now)
        while self._active:
            _, ticket, uid = heapq.heappop(self._active)
            entry = self._entries.get(uid)
            if entry is not None and entry.ticket == ticket:
                entry.place = Place.IN_FLIGHT
                entry.events_seen = self._events
                return uid
        return None

    def refuse(self, uid: str, now: float) -> None:
        """No node suits the pod in flight: it waits for an event, and at least its back-off.

        An event that came while it was tried counts: what it changed may have been missed.
        """
        entry = self._entries.get(uid)
        if entry is None:
            return
        self._rest(entry, now)
        if entry.events_seen == self._events:
            entry.place = Place.UNSCHEDULABLE

    def fail(self, uid: str, now: float) -> None:
        """Note that trying the pod in flight met an error: it is due again after its back-off."""
        entry = self._entries.get(uid)
        if entry is not None:
            self._rest(entry, now)

    def wake(self, now: float) -> None:
        """Tell that the cluster changed in favour of waiting pods."""
        self._events += 1
        for entry in self._entries.values():
            if entry.place is Place.UNSCHEDULABLE:
                self._requeue(entry, max(now, entry.ready_at))

    def next_time(self) -> float | None:
        """Return when the next resting pod falls due; None if no pod rests."""
        while self._resting:
            when, ticket, uid = self._resting[0]
            entry = self._entries.get(uid)
            if entry is not None and entry.ticket == ticket and entry.place is Place.BACKOFF:
                return when
            heapq.heappop(self._resting)
        return None

    @property
    def idle(self) -> bool:
        """Whether nothing would be tried however long one waited without an event."""
        return all(entry.place is Place.UNSCHEDULABLE for entry in self._entries.values())

    def _activate(self, entry: _Entry) -> None:
        self._tickets += 1
        entry.place, entry.ticket = Place.ACTIVE, self._tickets
        heapq.heappush(self._active, (-entry.priority, entry.ticket, entry.uid))

    def _rest(self, entry: _Entry, now: float) -> None:
        entry.attempts += 1
        entry.since = now
        entry.ready_at = now + self._backoff.delay(entry.attempts)
        self._requeue(entry, entry.ready_at)

    def _requeue(self, entry: _Entry, when: float) -> None:
        self._tickets += 1
        entry.place, entry.ticket = Place.BACKOFF, self._tickets
        heapq.heappush(self._resting, (when, entry.ticket, entry.uid))

    def _promote(self, now: float) -> None:
        for entry in self._entries.values():
            stale = entry.place is Place.UNSCHEDULABLE and now - entry.since >= LEFTOVER_SECONDS
            if stale:
                self._activate(entry)
        while (when := self.next_time()) is not None and when <= now:
            _, _, uid = heapq.heappop(self._resting)
            self._activate(self._entries[uid])
