"""What moves: events for those who watch, measures over time, and an end that lets everybody go."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.dashboard.errors import CrowdedError
from scheduler.dashboard.feed import WATCHERS, Feed
from tests.scheduler.conftest import Town
from tests.scheduler.dashboard.conftest import make_feed
from tests.scheduler.nodes import mesh, switched


def make(town: Town, *, alive: float = 15.0) -> Feed:
    """Make a feed of the town that looks as often as it may."""
    return make_feed(town, watched_seconds=0.01, alive_seconds=alive)


async def test_who_watches_is_told_of_changes_alone(town: Town) -> None:
    """One event at once, then one when the cluster is another."""
    feed = make(town)
    await feed.look()
    events = feed.watch()
    assert await anext(events) == b"retry: 3000\n"
    assert await anext(events) == b"event: change\nid: 1\ndata: 1\n\n"
    waiting = asyncio.ensure_future(anext(events))
    await feed.look()
    await asyncio.sleep(0)
    assert not waiting.done()
    await town.node("a", mesh(4))
    await feed.look()
    assert await waiting == b"event: change\nid: 2\ndata: 2\n\n"
    await events.aclose()
    assert feed.watchers == 0


async def test_a_decision_is_a_change(town: Town) -> None:
    """Also one that leaves the cluster as it is."""
    await town.node("a", mesh(4))
    feed = make(town)
    await feed.look()
    await town.filter(await town.pod("p", 8), "a")
    await feed.look()
    version = feed.version
    await town.filter(await town.pod("p2", 8), "a")
    await feed.look()
    assert feed.version == version + 1


async def test_silence_is_broken_for_proxies(town: Town) -> None:
    """A comment now and then, which browsers pass over."""
    feed = make(town, alive=0.01)
    events = feed.watch()
    assert [await anext(events) for _ in range(4)][2:] == [b": alive\n\n", b": alive\n\n"]
    await events.aclose()


async def test_the_end_lets_everybody_go(town: Town) -> None:
    """A daemon that stops does not wait for open pages."""
    feed = make(town)
    running = asyncio.create_task(feed.run())
    watching = asyncio.create_task(drain(feed))
    await town.until(lambda: feed.watchers == 1 and feed.version)
    running.cancel()
    assert b"event: change" in await asyncio.wait_for(watching, 5)


async def drain(feed: Feed) -> bytes:
    """Watch to the end."""
    return b"".join([event async for event in feed.watch()])


async def test_a_crowd_is_refused(town: Town) -> None:
    """So many pages and no more."""
    feed = make(town)
    watching = [feed.watch() for _ in range(WATCHERS)]
    for events in watching:
        feed.admit()
        await anext(events)
    with pytest.raises(CrowdedError, match="100 pages follow"):
        feed.admit()
    for events in watching:
        await events.aclose()


async def test_measures_are_kept_over_time(town: Town) -> None:
    """What is free, what sets there are, and the bandwidth of those that were given."""
    await town.node("a", switched(8))
    feed = make(town)
    await feed.look()
    pod = await town.pod("p", 4)
    await town.filter(pod, "a")
    assert await town.bind(pod, "a") == ""
    await feed.look()
    last = {name: feed.history.points(name, "hour")[-1][1] for name in feed.history.names}
    assert last["placed"] is not None
    assert last["placed"] > 0
    assert last["best 4"] == last["placed"]
    assert feed.history.points("unallocated", "day")[-1][1] == pytest.approx(75)


async def test_a_look_that_fails_is_not_the_end(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page stands still, the daemon goes on, and so does the page when it can again."""
    feed = make(town)
    failures = 0

    async def fail() -> None:
        """Fail, as the planted fault."""
        nonlocal failures
        failures += 1
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(town.extender.desk, "cluster", fail)
        running = asyncio.create_task(feed.run())
        watching = asyncio.create_task(drain(feed))
        await town.until(lambda: failures > 1)
    await town.until(lambda: feed.version)
    running.cancel()
    await watching
