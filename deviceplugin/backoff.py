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
