"""Reads back what pods really hold: after allocations, when pods end, and every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from deviceplugin.backoff import Backoff
from deviceplugin.errors import PodResourcesError
from deviceplugin.pods.holdings import Reading
from runtime.objects import Pod

FIRST_PAUSE = 0.25
"""Seconds until kubelet is asked again about a pod that has ended and still holds its GPUs."""

_log = structlog.get_logger("deviceplugin.readback")


class ReadBack:
    """Calls `read` (None: not now, an admission is under way) until `stop`.

    What was read goes where the desk sends every answer of kubelet. `period` is the longest time
    between two readings, `quiet` the rest before another try, both in seconds.
    """

    def __init__(
        self,
        read: Callable[[], Reading | None],
        pods: Callable[[], Mapping[str, Pod]],
        *,
        period: float = 5.0,
        quiet: float = 0.1,
    ) -> None:
        self._read = read
        self._pods = pods
        self._period = period
        self._quiet = quiet
        self._soon = Backoff(min(FIRST_PAUSE, period), period)
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Ask for a reading soon; never blocks."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` end."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Read until `stop`; kubelet's silence is retried."""
        while True:
            self._wake.clear()
            # After it: a stop in between would be slept over.
            if self._stopping.is_set():
                return
            self._wake.wait(self._once())
            # kubelet notes the devices after our answer to Allocate, not before.
            self._stopping.wait(self._quiet)

    def _once(self) -> float:
        """Read once; return in how many seconds to read again."""
        try:
            reading = self._read()
        except PodResourcesError as error:
            _log.warning("kubelet does not say who holds what", problem=str(error))
            return self._soon.next()
        if reading is None:
            return self._quiet
        pods = self._pods()
        if any(key in pods and pods[key].finished for key in reading.pods):
            # kubelet frees lazily: it will say so in a moment.
            return self._soon.next()
        self._soon.reset()
        return self._period
