"""So many questions of strangers a second: they are answered on the loop that places pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.explain.access import is_own

RATE: Final = 100.0
"""Questions a second; one that is refused takes 0.4 ms of the loop, a file 1 ms."""

BURST: Final = 200.0
"""Questions that may come at once after a while without any: a page is some five."""


class Pace:
    """Gives each question its turn, in the order in which they came.

    `clock` gives seconds that never go back.
    """

    def __init__(
        self, clock: Callable[[], float], *, rate: float = RATE, burst: float = BURST
    ) -> None:
        self._clock = clock
        self._gap = 1 / rate
        self._credit = (burst - 1) / rate
        self._next = float("-inf")

    def wait(self) -> float:
        """Take a turn; return in how many seconds it is."""
        now = self._clock()
        turn = max(self._next, now - self._credit)
        self._next = turn + self._gap
        return max(turn - now, 0.0)

    def over(self, app: ASGIApp) -> ASGIApp:
        """Return the application for strangers; who comes over the loopback does not wait."""

        async def paced(scope: Scope, receive: Receive, send: Send) -> None:
            """Answer when it is the question's turn."""
            client = scope.get("client")
            if client is None or not is_own(client[0]):
                await asyncio.sleep(self.wait())
            await app(scope, receive, send)

        return paced
