"""When the demo's pods arrive. Pure: the time and the state of the cluster are given.

A count of pods arrives in one go, or spread over the faults, so that each fault is followed by
pods that prove the recovery. A real list arrives as the cluster takes it: some pods always wait,
so it fills and stays full while pods end and the next ones come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from embedded.workload import PodPlan

# How long a real list goes on once the cluster is full, and at most (seconds).
FULL_SECONDS: Final = 10.0
LIST_SECONDS: Final = 75.0
# Pods of a list that may wait for their first verdict: enough to keep the scheduler busy.
_UNTRIED: Final = 6
# A few seconds to watch a small number come, and no more than the scheduler takes of a large one.
_PER_SECOND: Final = 60.0
_WATCHED_SECONDS: Final = 4.0
_WATCHED_PER_SECOND: Final = 15.0


class Waiting(msgspec.Struct, frozen=True):
    """The queue as arrivals see it: pods without a node, and how many of them were refused."""

    pending: int
    refused: int
    completed: int


class Arrivals(Protocol):
    """Which pods come next."""

    def due(self, now: float, waiting: Waiting) -> list[PodPlan]:
        """Return the pods to create now, `now` being seconds since the first call."""

    def over(self, now: float, waiting: Waiting) -> bool:
        """Tell whether no pod comes any more."""


class CountedArrivals:
    """All pods of a fixed number, evenly over `seconds`."""

    def __init__(self, plans: Sequence[PodPlan], seconds: float = 0.0) -> None:
        self._left = deque(plans)
        self._total = len(plans)
        watched = min(len(plans) / _WATCHED_PER_SECOND, _WATCHED_SECONDS)
        self._seconds = max(seconds, len(plans) / _PER_SECOND, watched)

    def due(self, now: float, waiting: Waiting) -> list[PodPlan]:
        """Return what should have come by now."""
        del waiting
        target = min(self._total, int(self._total * now / self._seconds) + 1 if self._total else 0)
        return [self._left.popleft() for _ in range(target - (self._total - len(self._left)))]

    def over(self, now: float, waiting: Waiting) -> bool:
        """Tell whether all have come."""
        del now, waiting
        return not self._left


class ListedArrivals:
    """The pods of a list in its order, as many as keep up to `window` waiting.

    Stop rule: the cluster counts as full from the moment when every waiting pod has been refused.
    Arrivals end 10 s after that if pods ended in between (else when the next one does), at the
    list's end, or after 75 s; never before `least` seconds.
    """

    def __init__(self, plans: Sequence[PodPlan], window: int, least: float = 0.0) -> None:
        self._left = deque(plans)
        self._window = window
        self._least = least
        self._completed_when_full = 0
        self.full_since: float | None = None

    @property
    def left(self) -> int:
        """How many pods of the list have not arrived."""
        return len(self._left)

    def due(self, now: float, waiting: Waiting) -> list[PodPlan]:
        """Return the next pods, if few enough wait."""
        untried = waiting.pending - waiting.refused
        if self.full_since is None and waiting.refused and not untried:
            self.full_since, self._completed_when_full = now, waiting.completed
        room = min(self._window - waiting.pending, _UNTRIED - untried, len(self._left))
        return [self._left.popleft() for _ in range(max(room, 0))]

    def over(self, now: float, waiting: Waiting) -> bool:
        """Tell whether the stop rule holds."""
        if now < self._least:
            return False
        full = (
            self.full_since is not None
            and now - self.full_since >= FULL_SECONDS
            and waiting.completed > self._completed_when_full
        )
        return full or not self._left or now >= max(LIST_SECONDS, self._least)
