"""Decisions as Events on an API server: what they say, and how long they live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from embedded.apiserver import ApiServer
from runtime.errors import ApiError
from runtime.kube_aio import AioKubeClient
from scheduler.explain.events import EXPIRES_KEY, LONGEST, QUEUED, Events, describe
from scheduler.explain.metrics import ExplainMetrics
from scheduler.explain.record import Record
from scheduler.explain.settings import EventSettings, ExplainSettings
from scheduler.settings import ExtenderSettings
from tests.scheduler.conftest import Town, make_town
from tests.scheduler.nodes import mesh, pcie, switched

EVENTS = "/api/v1/namespaces/default/events"
SETTINGS = ExtenderSettings(
    bind_timeout_seconds=0.5,
    explain=ExplainSettings(
        events=EventSettings(enabled=True, lifetime_seconds=600, per_second=1000)
    ),
)


@pytest.fixture
async def telling(api: ApiServer, client: AioKubeClient) -> AsyncIterator[Town]:
    """Open a town whose extender writes Events."""
    town = make_town(api, client, SETTINGS)
    await town.open()
    events = town.extender.explain.events
    assert events is not None
    task = asyncio.create_task(events.run(client))
    yield town
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await town.close()


async def listed(client: AioKubeClient) -> list[dict[str, Any]]:
    """Return the Events that are there."""
    found: list[dict[str, Any]] = msgspec.json.decode(await client.get(EVENTS))["items"]
    return found


async def until_events(town: Town, count: int) -> list[dict[str, Any]]:
    """Wait until so many Events are there."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while True:
            found = await listed(town.client)
            if len(found) == count:
                return found
            await asyncio.sleep(0.01)


def kept(town: Town) -> Record:
    """Return the one record that there is."""
    town.extender.explain.recorder.settle()
    (record,) = town.extender.store
    return record


async def test_a_bound_pod_has_an_event_with_its_set_and_the_best_of_each_strategy(
    telling: Town,
) -> None:
    """On the pod, in one line."""
    await telling.node("fast", switched(4))
    await telling.node("near", mesh(4))
    pod = await telling.pod("p", 4)
    await telling.filter(pod, "fast", "near")
    await telling.bind(pod, "fast")
    (event,) = await until_events(telling, 1)
    assert event["involvedObject"]["uid"] == pod["metadata"]["uid"]
    assert (event["reason"], event["type"]) == ("GpusPlaced", "Normal")
    assert event["message"].startswith("fast: GPU 0,1,2,3 (NV")
    assert "best of 2 of 2 nodes; " in event["message"]
    assert "link_quality x0.24: fast 100.0, near" in event["message"]


async def test_a_refused_pod_has_one_event_for_each_reason(telling: Town) -> None:
    """Another try for the same reason is no news."""
    await telling.node("a", mesh(2))
    pod = await telling.pod("p", 4, annotations={"gputopo.dev/min-link": "NV"})
    for _ in range(3):
        await telling.filter(pod, "a")
    await telling.node("another", mesh(2))
    await telling.filter(pod, "a", "another")
    kept(telling)
    (event,) = await until_events(telling, 1)
    assert (event["reason"], event["type"]) == ("GpusRefused", "Warning")
    assert event["message"] == "1 of 1: node has too few healthy GPUs"
    await telling.node("b", pcie(4))
    await telling.filter(pod, "a", "b")
    kept(telling)
    messages = [one["message"] for one in await until_events(telling, 2)]
    assert any("1 of 2: no set of the node's free GPUs" in message for message in messages)


async def test_without_the_switch_nothing_is_written(town: Town) -> None:
    """It is off unless it is turned on."""
    assert town.extender.explain.events is None


async def test_what_another_process_left_is_deleted_when_its_time_is_over(
    api: ApiServer, client: AioKubeClient
) -> None:
    """Ours alone: others' Events and those that still have time stay."""
    clock = [1_000_000.0]
    first = make_events(lambda: clock[0], lifetime=600)
    town = make_town(api, client)
    await town.open()
    await town.node("a", mesh(4))
    await town.filter(await town.pod("p", 4), "a")
    record = kept(town)
    await client.post(EVENTS, first.describe(record))
    other = {**first.describe(record)}
    other["metadata"] = {"name": "theirs", "namespace": "default"}
    await client.post(EVENTS, other)
    clock[0] += 599
    second = make_events(lambda: clock[0], lifetime=600)
    task = asyncio.create_task(second.run(client))
    assert len(await listed(client)) == 2
    clock[0] += 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    task = asyncio.create_task(make_events(lambda: clock[0], lifetime=600).run(client))
    (left,) = await until_events(town, 1)
    assert left["metadata"]["name"] == "theirs"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await town.close()


def make_events(clock: Any, lifetime: float) -> Events:
    """Build a writer with a clock of its own."""
    return Events(
        lifetime=lifetime,
        rate=1000,
        instance="test",
        clock=clock,
        metrics=ExplainMetrics(CollectorRegistry()),
    )


class Refusing:
    """An API server that lets nobody write Events."""

    def __init__(self) -> None:
        self.asked = 0

    async def post(self, path: str, body: object) -> bytes:
        """Refuse."""
        self.asked += 1
        raise ApiError(403, "Forbidden", "events is forbidden")

    async def delete(self, path: str) -> bytes:
        """Refuse."""
        raise ApiError(403, "Forbidden", "events is forbidden")

    async def list_pages(self, path: str, query: object) -> AsyncIterator[bytes]:
        """Refuse."""
        raise ApiError(403, "Forbidden", "events is forbidden")
        yield b""


class Nested(Refusing):
    """An API server with an Event under our label that is nested beyond all reason."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: asyncio.Queue[str] = asyncio.Queue()

    async def delete(self, path: str) -> bytes:
        """Delete."""
        self.deleted.put_nowait(path)
        return b"{}"

    async def list_pages(self, path: str, query: object) -> AsyncIterator[bytes]:
        """Show it."""
        fields = b'{"f":' * 5000 + b"1" + b"}" * 5000
        meta = b'"name":"e","namespace":"default","managedFields":[{"fieldsV1":' + fields + b"}]"
        yield b'{"metadata":{},"items":[{"metadata":{' + meta + b"}}]}"


async def test_nobodys_event_ends_the_daemon() -> None:
    """Whoever may write Events may give one our label, and thousands of levels."""
    api = Nested()
    task = asyncio.create_task(make_events(lambda: 0.0, lifetime=600).run(api))
    deleting = asyncio.create_task(api.deleted.get())
    await asyncio.wait({task, deleting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    assert deleting.result() == "/api/v1/namespaces/default/events/e"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_refused_writes_are_counted_and_stop_nothing(town: Town) -> None:
    """The task goes on, and so does scheduling, which never waits for it."""
    await town.node("a", mesh(4))
    await town.filter(await town.pod("p", 4), "a")
    record = kept(town)
    events = make_events(lambda: 0.0, lifetime=600)
    refusing = Refusing()
    task = asyncio.create_task(events.run(refusing))
    for _ in range(3):
        events.offer(record)
    await town.until(lambda: refusing.asked == 3)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_more_than_can_wait_is_lost_not_waited_for(town: Town) -> None:
    """The oldest first, and it is counted."""
    await town.node("a", mesh(4))
    await town.filter(await town.pod("p", 4), "a")
    record = kept(town)
    registry = CollectorRegistry()
    events = Events(
        lifetime=1, rate=1, instance="", clock=lambda: 0.0, metrics=ExplainMetrics(registry)
    )
    for _ in range(QUEUED + 5):
        events.offer(record)
    lost = registry.get_sample_value("gputopo_explain_events_total", {"fate": "lost"})
    assert lost == 5


async def test_a_message_fits_whatever_its_names_are(town: Town) -> None:
    """The API server takes 1,024 bytes."""
    names = [f"{letter * 60}.{letter * 60}.{letter * 60}" for letter in "abcdefgh"]
    for name in names:
        await town.node(name, mesh(4))
    pod = await town.pod("p", 4)
    await town.filter(pod, *names)
    await town.bind(pod, names[0])
    record = kept(town)
    assert record.outcome == "bound"
    assert len(describe(record).encode()) <= LONGEST
    written = make_events(lambda: 0.0, lifetime=600).describe(record)
    assert written["metadata"]["annotations"][EXPIRES_KEY] == "1970-01-01T00:10:00.000Z"
