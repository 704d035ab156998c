"""Strangers get their turns one after the other; who is near does not wait."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from scheduler.explain.pace import Pace

RATE, BURST = 10.0, 5.0

PAUSES = st.lists(st.floats(0, 2), min_size=1, max_size=60)


@given(PAUSES)
def test_in_no_time_are_there_more_turns_than_its_length_allows(pauses: list[float]) -> None:
    """In any span of t seconds at most rate x t, and a burst."""
    now = [0.0]
    pace = Pace(lambda: now[0], rate=RATE, burst=BURST)
    turns = []
    for pause in pauses:
        now[0] += pause
        turns.append(now[0] + pace.wait())
    assert turns == sorted(turns)
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            span = turns[last] - turns[first]
            assert last - first + 1 <= BURST + RATE * span + 1e-6


@given(PAUSES)
def test_nobody_waits_longer_than_those_before_him_need(pauses: list[float]) -> None:
    """Who keeps to the rate never waits at all."""
    now = [0.0]
    pace = Pace(lambda: now[0], rate=RATE, burst=BURST)
    for number, pause in enumerate(pauses):
        now[0] += pause
        assert pace.wait() <= max(0.0, (number + 1 - BURST) / RATE) + 1e-6
    steady = Pace(lambda: now[0], rate=RATE, burst=BURST)
    for _ in pauses:
        now[0] += 1 / RATE
        assert steady.wait() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("peer", "counts"), [("10.0.0.1", True), ("127.0.0.1", False)])
async def test_only_strangers_take_turns(peer: str, counts: bool) -> None:
    """Kubectl port-forward is as quick as ever, whatever others do."""

    async def greet(_: object) -> PlainTextResponse:
        """Answer."""
        return PlainTextResponse("hello")

    pace = Pace(lambda: 0.0, rate=1000, burst=2)
    application = pace.over(Starlette(routes=[Route("/", greet)]))
    transport = httpx2.ASGITransport(application, client=(peer, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
        for _ in range(5):
            assert (await http.get("/")).text == "hello"
    # The sixth turn is after those that were taken, of which two cost nothing.
    assert pace.wait() == pytest.approx(0.004 if counts else 0)
