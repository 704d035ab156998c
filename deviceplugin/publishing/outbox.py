"""What is to be written to the API server, and when. Pure; times are given by the caller.

Values are kept by annotation key, only the newest counts. At most one write in `interval` seconds,
and after a failure a pause that doubles; no failure ever drops a value.
"""

from __future__ import annotations

from deviceplugin.backoff import Backoff

LAST_PAUSE = 5.0
"""Seconds; an API server that comes back hears from every node within this time."""

LAST_REFUSED_PAUSE = 60.0
"""Seconds between tries of what the API server refuses: a right that is missing, a bad value."""


class Outbox:
    """The annotations of one object: what they should be and what they are known to be."""

    def __init__(self, interval: float, last_pause: float = LAST_PAUSE) -> None:
        self._interval = interval
        self._wanted: dict[str, str] = {}
        self._written: dict[str, str | None] = {}
        self._not_before = float("-inf")
        self._hurried = float("inf")
        self._pause = Backoff(interval, max(last_pause, interval))
        self._refused_pause = Backoff(interval, max(LAST_REFUSED_PAUSE, interval))

    def offer(self, key: str, value: str) -> None:
        """Want this value for the key from now on."""
        self._wanted[key] = value

    def due(self, now: float) -> float | None:
        """Return in how many seconds there is something to write, None if nothing waits."""
        return self.pause(now) if self.pending() else None

    def pause(self, now: float) -> float:
        """Return in how many seconds a write may be tried, be there one or not."""
        return max(0.0, self._not_before - now)

    def pending(self) -> dict[str, str]:
        """Return what is to be written."""
        return {
            key: value for key, value in self._wanted.items() if self._written.get(key) != value
        }

    def wrote(self, values: dict[str, str], now: float) -> None:
        """Note that a write has succeeded. What was offered meanwhile still waits."""
        self._written.update(values)
        self._not_before = now + self._interval
        self._hurried = float("inf")
        self._pause.reset()
        self._refused_pause.reset()

    def failed(self, now: float, *, refused: bool = False) -> None:
        """Note that a write has failed; `refused` if the same will hardly do better soon."""
        self._not_before = now + (self._refused_pause if refused else self._pause).next()
        self._hurried = now + self._interval

    def hurry(self) -> None:
        """Cut the pause after a failure short, to the distance that writes keep anyway."""
        self._not_before = min(self._not_before, self._hurried)

    def found(self, values: dict[str, str | None]) -> None:
        """Note what the object really carries; somebody else may have changed it."""
        self._written = {key: values.get(key) for key in {*self._wanted, *values}}
