"""Events of the Node: written once, thinned in a storm, dropped rather than waited for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from deviceplugin.guarding.events import BURST, FORBIDDEN_PAUSE, PATH, QUEUED, EventWriter
from deviceplugin.guarding.happenings import Happening
from deviceplugin.metrics import Metrics
from runtime.errors import ApiError, KubeError, NotFoundError, UnreachableError
from tests.waiting import wait_until

SICK = Happening("GpuUnhealthy", "GPU 1 (g1) gets no new pods: XID 48", "g1", warning=True)


class Server:
    """An API server that notes what it is sent, and fails when it is told to."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.patched: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[KubeError] = []

    def post(self, path: str, body: Any, *, timeout: float) -> bytes:
        """Create."""
        assert path == PATH
        if self.failures:
            raise self.failures.pop(0)
        self.posted.append(body)
        return b"{}"

    def patch(self, path: str, body: Any, *, timeout: float) -> bytes:
        """Patch."""
        if self.failures:
            raise self.failures.pop(0)
        self.patched.append((path, body))
        return b"{}"


class World:
    """A writer, its server, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.server = Server()
        self.metrics = Metrics()
        self.writer = EventWriter(
            self.server,
            "n1",
            self.metrics,
            pause=0,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )

    def counted(self, result: str) -> float:
        """Return how many were so."""
        read = self.metrics.registry.get_sample_value
        return read("gputopo_plugin_events_total", {"result": result}) or 0


@pytest.fixture
def world() -> World:
    """Return a world in which nothing has been written."""
    return World()


def refusal(status: int) -> ApiError:
    """Return an answer that is no success."""
    kind = NotFoundError if status == 404 else ApiError
    return kind(status, "Refused", "not now")


def test_an_event_is_about_the_node(world: World) -> None:
    """In the namespace where kubectl looks for it, named as kubelet names the node."""
    assert world.writer.write(SICK)
    (event,) = world.server.posted
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": "n1",
    }
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("n1.")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "GpuUnhealthy", 1)
    assert event["message"] == SICK.message
    assert event["firstTimestamp"] == event["lastTimestamp"] == "1970-01-01T00:00:00Z"


def test_the_same_again_is_counted(world: World) -> None:
    """One object for a GPU that fails again within ten minutes; other words have their own."""
    world.writer.write(SICK)
    world.now = 60.0
    world.writer.write(SICK)
    world.writer.write(Happening("GpuUnhealthy", "GPU 2", "g2", warning=True))
    world.writer.write(Happening("GpuUnhealthy", "GPU 1 (g1): lost", "g1", warning=True))
    assert len(world.server.posted) == 3
    ((path, body),) = world.server.patched
    assert path == f"{PATH}/{world.server.posted[0]['metadata']['name']}"
    assert (body["count"], body["lastTimestamp"]) == (2, "1970-01-01T00:01:00Z")


def test_an_event_that_has_expired_is_written_anew(world: World) -> None:
    """The server forgets Events after an hour, or sooner."""
    world.writer.write(SICK)
    world.server.failures = [refusal(404)]
    assert world.writer.write(SICK)
    assert len(world.server.posted) == 2


def test_after_a_while_the_same_is_news_again(world: World) -> None:
    """Each episode has an object of its own."""
    world.writer.write(SICK)
    world.now = 601.0
    world.writer.write(SICK)
    names = [event["metadata"]["name"] for event in world.server.posted]
    assert len(set(names)) == 2


def test_a_storm_is_thinned(world: World) -> None:
    """A burst goes through, then one every few seconds; the rest is counted as dropped."""
    for _ in range(BURST + 10):
        world.writer.write(SICK)
    assert world.counted("ok") == BURST
    assert world.counted("dropped") == 10
    world.now = 12.0
    assert world.writer.write(SICK)
    assert not world.writer.write(SICK)


def test_a_server_that_is_away_for_a_moment_is_asked_again(world: World) -> None:
    """Three times in all; then the Event is dropped, and the next is tried."""
    world.server.failures = [UnreachableError("away")] * 2
    assert world.writer.write(SICK)
    world.server.failures = [UnreachableError("away")] * 3
    assert not world.writer.write(SICK)
    assert world.counted("failed") == 1


def test_without_the_right_it_keeps_quiet(world: World) -> None:
    """An older role does not allow it: no request for some minutes, and no harm."""
    world.server.failures = [refusal(403)]
    assert not world.writer.write(SICK)
    assert not world.writer.write(SICK)
    assert world.server.posted == []
    world.now = FORBIDDEN_PAUSE
    assert world.writer.write(SICK)


def test_a_refused_event_is_not_sent_twice(world: World) -> None:
    """What is wrong with it will be wrong again."""
    world.server.failures = [refusal(422), UnreachableError("not reached")]
    assert not world.writer.write(SICK)
    assert len(world.server.failures) == 1


def test_telling_never_blocks_and_the_queue_is_bounded(world: World) -> None:
    """What does not fit is dropped; a thread writes the rest until the stop."""
    world.writer.tell((SICK,) * (QUEUED + 5))
    assert world.counted("dropped") == 5
    thread = threading.Thread(target=world.writer.run)
    thread.start()
    wait_until(lambda: world.counted("ok") == BURST, what="the burst is written")
    world.writer.stop()
    thread.join(10)
    assert not thread.is_alive()
