"""kubelet's books, asked only when it is safe: one lock around everything that touches List.

Between the moment kubelets before 1.38 set devices aside and the moment they note them for the
pod, a List makes them forget, and the next pod may get the same GPU. So List is called during
GetPreferredAllocation (nothing is set aside yet), and otherwise only when no admission has been
seen for a while, of whatever resource.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from deviceplugin.errors import PodResourcesError
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import FAILED, OK
from deviceplugin.pods.holdings import Reading


class HoldingsReader(Protocol):
    """kubelet's PodResources."""

    def list(self, timeout: float) -> Reading:
        """Return who holds what; raises PodResourcesError."""


class Offer(msgspec.Struct, frozen=True):
    """What kubelet would give out, by resource, and when it was asked."""

    at: float
    devices: dict[str, frozenset[str]]


class Ledger:
    """What kubelet said last, and the lock that all desks share.

    `timeout` is the patience with one List outside of an admission. `on_reading` is called by
    `read_back` alone, when there is an answer that it was not called for yet; `last` is the newest.
    `allocatable` asks what kubelet would give out; `offer` is its answer.
    """

    def __init__(
        self,
        reader: HoldingsReader,
        metrics: Metrics,
        *,
        timeout: float = 1.0,
        on_reading: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        allocatable: Callable[[float], dict[str, frozenset[str]]] | None = None,
    ) -> None:
        self._reader = reader
        self._allocatable = allocatable
        self._untold = False
        self.offer: Offer | None = None
        self._metrics = metrics
        self._timeout = timeout
        self._on_reading = on_reading
        self._clock = clock
        self._rest_from = float("-inf")
        self.lock = threading.Lock()
        self.last: Reading | None = None

    def rest(self, seconds: float) -> None:
        """Expect an Allocate within some seconds. With the lock."""
        self._rest_from = self._clock() + seconds

    def ask(self, timeout: float) -> Reading:
        """Ask kubelet. With the lock. Raises PodResourcesError."""
        try:
            reading = self._reader.list(timeout)
        except PodResourcesError:
            self._metrics.pod_resources.labels(FAILED).inc()
            raise
        self._metrics.pod_resources.labels(OK).inc()
        self.last = reading
        self._untold = True
        return reading

    def read_back(self) -> Reading | None:
        """Ask kubelet outside of admissions; None if one is or may be under way.

        What kubelet has answered in an admission is passed on either way: there it would make pods
        wait for the publisher and the gauges. Raises PodResourcesError.
        """
        try:
            return self._ask_outside()
        finally:
            if self._untold:
                self._untold = False
                self._on_reading()

    def _ask_outside(self) -> Reading | None:
        if not self.lock.acquire(blocking=False):
            return None
        try:
            if self._clock() < self._rest_from:
                return None
            reading = self.ask(self._timeout)
            self._look_at_offer()
            return reading
        finally:
            self.lock.release()

    def _look_at_offer(self) -> None:
        if self._allocatable is None:
            return
        asked = self._clock()
        try:
            self.offer = Offer(asked, self._allocatable(self._timeout))
        except PodResourcesError:
            self.offer = None  # an old kubelet does not know the question
