"""The dashboard of a replica that does not decide shows what the one that does has to show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from starlette.applications import Starlette

from scheduler.dashboard import routes
from scheduler.dashboard.feed import Feed
from scheduler.dashboard.pages import Sources
from scheduler.explain import app
from scheduler.explain.access import Access
from scheduler.explain.relay import ANSWERED_BY, Relay
from scheduler.explain.tokens import TokenFile
from tests.scheduler.conftest import Town, make_town
from tests.scheduler.dashboard.conftest import ACCESS, Visitor, check
from tests.scheduler.explain.replicas import add_pod, lead, relaying, serve_on
from tests.scheduler.nodes import mesh


class Pair(NamedTuple):
    """What one sees at the standby, and the town and feed of the one that leads."""

    standby: httpx2.AsyncClient
    town: Town
    feed: Feed


def make_feed(town: Town, name: str) -> Feed:
    """Make a feed that looks as often as it may."""
    extender = town.extender
    return Feed(
        extender.desk,
        extender.store,
        extender.waiting,
        name=name,
        watched_seconds=0.01,
        alive_seconds=0.01,
    )


def serve(town: Town, feed: Feed, access: Access, relay: Relay) -> Starlette:
    """Return all that a replica serves."""
    extender = town.extender
    sources = Sources(extender.desk, extender.store, extender.waiting, feed)
    api = app.build(extender.desk, access, relay=relay)
    return routes.build(sources, api, access, relay)


@pytest.fixture
async def pair(town: Town, tmp_path: Path) -> AsyncIterator[Pair]:
    """Serve the town as the pod `them`, which leads, and another replica on a port of its own."""
    client = town.client
    (tmp_path / "shown").write_text("between us")
    shown = TokenFile(tmp_path / "shown")
    await lead(client, "them_1")
    await add_pod(client, "them", "127.0.0.1")
    await town.node("a", mesh(4))
    other = make_town(town.api, client)
    feed = make_feed(town, "them-")
    await feed.look()
    async with AsyncExitStack() as stack:
        await other.open()
        stack.push_async_callback(other.close)
        strict = Access(token=shown, trust_loopback=False)
        theirs = await stack.enter_async_context(relaying(client, 1, me="them"))
        port = await stack.enter_async_context(
            serve_on("127.0.0.1", serve(town, feed, strict, theirs))
        )
        ours = await stack.enter_async_context(relaying(client, port, token=shown))
        mine = await stack.enter_async_context(
            serve_on("127.0.0.1", serve(other, make_feed(other, "us-"), ACCESS, ours))
        )
        base = f"http://127.0.0.1:{mine}"
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=base))
        yield Pair(http, town, feed)


async def place(town: Town, name: str) -> None:
    """Let the replica that leads place a pod."""
    visitor = Visitor(town)
    await visitor.place(name, 2, "a")
    await visitor.http.aclose()


async def test_every_page_is_the_leaders(pair: Pair) -> None:
    """Also those of a decision, which only it knows; and what pages fetch from the API."""
    await place(pair.town, "train")
    pages = ("/", "/nodes", "/nodes/a", "/pods?show=bound", "/pods/default/train")
    for path in (*pages, "/pods/default/none"):
        answer = await pair.standby.get(path)
        assert answer.status_code == (404 if path.endswith("none") else 200)
        assert answer.headers[ANSWERED_BY] == "them"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        check(answer.text)
    assert "It runs on a with 2 GPUs" in (await pair.standby.get("/pods/default/train")).text
    told = await pair.standby.post("/v1/dry-run", json={"pods": [{"pod": "default/train"}]})
    assert (told.status_code, told.headers[ANSWERED_BY]) == (200, "them")


async def test_files_and_the_form_are_its_own(pair: Pair) -> None:
    """They need nobody who decides, and nobody to be let in."""
    for path in ("/static/dashboard.js", "/sign-in"):
        answer = await pair.standby.get(path)
        assert answer.status_code == 200
        assert ANSWERED_BY not in answer.headers


async def test_events_are_the_leaders(pair: Pair) -> None:
    """What happens there is told here."""
    async with pair.standby.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"
        lines = stream.aiter_lines()
        assert await _next(lines) == "data: them-1"
        await pair.town.node("b", mesh(4))
        await pair.feed.look()
        assert await _next(lines) == "data: them-2"


async def test_events_end_when_another_one_leads(pair: Pair) -> None:
    """The page comes again, and then follows that one; versions of two replicas never meet."""
    async with pair.standby.stream("GET", "/events") as stream:
        lines = stream.aiter_lines()
        assert await _next(lines) == "data: them-1"
        await lead(pair.town.client, "us_2")
        async with asyncio.timeout(20):
            assert [line async for line in lines if line.startswith("data")] == []
    async with pair.standby.stream("GET", "/events") as stream:
        assert ANSWERED_BY not in stream.headers
        assert (await _next(stream.aiter_lines())).startswith("data: us-")


async def test_a_leader_that_is_away_is_told_on_a_page(pair: Pair) -> None:
    """In words, with the pod's name."""
    await lead(pair.town.client, "gone_1")
    answer = await pair.standby.get("/pods")
    assert answer.status_code == 503
    assert "gone decides, and has no address" in answer.text
    check(answer.text)


async def _next(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(5):
        return await anext(line async for line in lines if line.startswith("data"))
