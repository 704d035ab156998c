"""What stands around plugins at run time: they are timed, and a faulty one is left out.

A score plugin that raises, or answers with the wrong shape, costs its part of one decision and
not the decision. The same holds for every method of a guest, a plugin that the user brought. A
guest that takes too long rests for a while: it is called in the serial part of the scheduler's
loop. Built-in filters are not fenced: what they keep apart must never be guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from scheduler.errors import PluginError

SLOW_SECONDS: Final = 0.05
"""A guest that took longer in one call rests; a whole filter call takes a few milliseconds."""

REST_SECONDS: Final = 30.0

_SHOWN: Final = 200

_T = TypeVar("_T")

Stopwatch = Callable[[], float]
"""Seconds that only ever grow; the engine has no clock of its own."""


class Fault(msgspec.Struct, frozen=True):
    """What a plugin did wrong in a decision, which went on without it."""

    plugin: str
    method: str
    problem: str


class Fence:
    """Times plugins over many decisions, and keeps slow guests out."""

    def __init__(
        self,
        guests: frozenset[str] = frozenset(),
        stopwatch: Stopwatch = float,
        *,
        slow_seconds: float = SLOW_SECONDS,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        # Without a stopwatch `float` is one that stands at 0.
        self.guests = guests
        self._stopwatch = stopwatch
        self._slow = slow_seconds
        self._rest = rest_seconds
        self._resting: dict[str, tuple[float, str]] = {}

    def enter(self, at: float) -> Passage:
        """Begin a decision at a time in seconds."""
        return Passage(self, at)

    def resting(self, plugin: str, at: float) -> str | None:
        """Return why a plugin rests at this time, None if it does not."""
        until, why = self._resting.get(plugin, (at, ""))
        if until > at:
            return why
        self._resting.pop(plugin, None)
        return None

    def note(self, plugin: str, seconds: float, at: float) -> None:
        """Take note of how long a call took."""
        if plugin in self.guests and seconds > self._slow:
            why = f"rests for {self._rest:g} s: a call took {seconds * 1000:.0f} ms"
            self._resting[plugin] = (at + self._rest, why)

    def read(self) -> float:
        """Read the stopwatch."""
        return self._stopwatch()


class Passage:
    """One decision's way through the fence: what each plugin took, and what went wrong."""

    def __init__(self, fence: Fence, at: float) -> None:
        self._fence = fence
        self._at = at
        # Known at the beginning: who was slow in this decision rests from the next one on.
        resting = ((guest, fence.resting(guest, at)) for guest in fence.guests)
        self._resting = {guest: why for guest, why in resting if why is not None}
        self.seconds: dict[str, float] = {}
        self.faults: list[Fault] = []

    def call(self, plugin: str, method: str, work: Callable[[], _T], *, fenced: bool) -> _T | None:
        """Do a plugin's work and return its answer, None if it failed or rests.

        Where it is not fenced, what it raises goes on: PluginError for a broken contract.
        """
        fence = self._fence
        if plugin in self._resting:
            self.faults.append(Fault(plugin, method, self._resting[plugin]))
            return None
        begun = fence.read()
        try:
            return work()
        except PluginError as error:
            if not fenced:
                raise
            self.faults.append(Fault(plugin, method, error.problem))
        except Exception as error:
            if not fenced:
                raise
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.faults.append(Fault(plugin, method, text[:_SHOWN]))
        finally:
            took = fence.read() - begun
            self.seconds[plugin] = self.seconds.get(plugin, 0.0) + took
            fence.note(plugin, took, self._at)
        return None

    def guest(self, plugin: str) -> bool:
        """Return whether the user brought this plugin."""
        return plugin in self._fence.guests
