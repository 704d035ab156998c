"""Pauses between attempts."""

from __future__ import annotations


class Backoff:
    """A pause that doubles from `first` to `last` seconds until it is reset."""

    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._next = first

    def next(self) -> float:
        """Return the pause to make now."""
        pause, self._next = self._next, min(self._last, self._next * 2)
        return pause

    def reset(self) -> None:
        """Start again with the shortest."""
        self._next = self._first


class Appointment:
    """A time that is set when something is first wanted; further off each time it is set again."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._at: float | None = None

    def cancel(self) -> None:
        """Forget the time that is set."""
        self._at = None

    def due(self, now: float, *, wanted: bool) -> bool:
        """Return whether the time has come; what is not wanted any more starts anew."""
        if not wanted:
            self._at = None
            self._backoff.reset()
        elif self._at is None:
            self._at = now + self._backoff.next()
        return self._at is not None and now >= self._at
