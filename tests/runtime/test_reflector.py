"""Both drivers against a real API server that goes away, forgets and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.apiserver.resources import NAMESPACES, NODES, Target
from runtime.kube import KubeClient, connect_aio
from runtime.objects import Node
from runtime.reflector import AioReflector, Reflector
from tests.waiting import wait_until


class Names:
    """A sink that remembers names and how it was told."""

    def __init__(self) -> None:
        self.present: dict[str, Node] = {}
        self.lists: list[set[str]] = []

    def listed(self, objects: tuple[Node, ...]) -> None:
        """Replace all."""
        self.present = {node.metadata.name: node for node in objects}
        self.lists.append(set(self.present))

    def changed(self, obj: Node) -> None:
        """Add or replace one."""
        self.present[obj.metadata.name] = obj

    def deleted(self, obj: Node) -> None:
        """Drop one."""
        self.present.pop(obj.metadata.name, None)


class Running:
    """A reflector at work, its sink, and a way to wait that suits its driver."""

    def __init__(self, sink: Names, reflector: Any) -> None:
        self.sink = sink
        self.reflector = reflector

    async def until(self, predicate: Callable[[], object]) -> None:
        """Let the loop run until `predicate` holds."""
        async with asyncio.timeout(10):
            while not predicate():  # noqa: ASYNC110 -- the sink knows no loop
                await asyncio.sleep(0.005)


@pytest.fixture(params=["thread", "task"])
async def running(
    request: pytest.FixtureRequest, client: KubeClient, kubeconfig: str
) -> AsyncIterator[Running]:
    """Run a reflector of nodes in a thread, then in a task."""
    sink = Names()
    options: dict[str, Any] = {"rng": random.Random(3), "last_pause": 0.3}
    if request.param == "thread":
        reflector = Reflector(client, "/api/v1/nodes", Node, sink, **options)
        thread = threading.Thread(target=reflector.run, name="reflector")
        thread.start()
        yield Running(sink, reflector)
        reflector.stop()
        thread.join(5)
        assert not thread.is_alive()
        return
    aio = await connect_aio(kubeconfig)
    aio_reflector = AioReflector(aio, "/api/v1/nodes", Node, sink, **options)
    task = asyncio.create_task(aio_reflector.run())
    yield Running(sink, aio_reflector)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await aio.close()


@pytest.fixture
def nodes(server: ApiServer) -> Callable[[str], None]:
    """Create nodes in the store, the first one at once."""

    def create(name: str) -> None:
        server.api.create(Target(NODES), {"metadata": {"name": name}})

    create("first")
    return create


def remove(server: ApiServer, name: str) -> None:
    """Delete a node from the store."""
    server.api.delete(Target(NODES, name=name))


async def test_it_lists_then_follows(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """What was there is listed, what comes, changes and goes is followed."""
    await running.until(running.reflector.synced.is_set)
    assert running.sink.lists == [{"first"}]
    nodes("second")
    await running.until(lambda: "second" in running.sink.present)
    server.api.patch(Target(NODES, name="second"), {"metadata": {"labels": {"a": "b"}}})
    await running.until(lambda: running.sink.present["second"].metadata.labels == {"a": "b"})
    remove(server, "second")
    await running.until(lambda: "second" not in running.sink.present)
    assert len(running.sink.lists) == 1


async def test_a_server_that_goes_and_comes_back_is_followed_without_a_list(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """After a cut the watch resumes from its version and brings what happened meanwhile."""
    await running.until(running.reflector.synced.is_set)
    nodes("before")
    await running.until(lambda: "before" in running.sink.present)
    server.go_away()
    nodes("meanwhile")
    remove(server, "first")
    server.come_back()
    await running.until(lambda: set(running.sink.present) == {"before", "meanwhile"})
    assert len(running.sink.lists) == 1
    assert running.reflector.state.failures >= 1


async def test_a_compacted_history_is_listed_again_and_drops_what_vanished(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """After 410 the list replaces everything: a deletion that nobody saw is seen."""
    await running.until(running.reflector.synced.is_set)
    nodes("seen")
    await running.until(lambda: "seen" in running.sink.present)
    server.go_away()
    nodes("meanwhile")
    remove(server, "first")
    server.compact()
    server.come_back()
    await running.until(lambda: set(running.sink.present) == {"seen", "meanwhile"})
    assert running.sink.lists[-1] == {"seen", "meanwhile"}


async def test_a_server_that_is_away_at_the_start_is_waited_for(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """A reflector that starts before the server is synced once the server is there."""
    server.go_away()
    server.come_back()
    await running.until(running.reflector.synced.is_set)
    await running.until(lambda: set(running.sink.present) == {"first"})


async def test_bookmarks_move_the_version_of_a_quiet_watch(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """Writes to other collections do not make a quiet watch's version too old."""
    await running.until(running.reflector.synced.is_set)
    before = running.reflector.state.version
    server.api.create(Target(NAMESPACES), {"metadata": {"name": "other"}})
    await running.until(lambda: running.reflector.state.version != before)


async def test_an_object_that_breaks_its_type_does_not_stop_the_stream(
    nodes: Callable[[str], None], server: ApiServer, running: Running
) -> None:
    """A node whose taints are no list is skipped; the next node arrives."""
    await running.until(running.reflector.synced.is_set)
    server.api.create(Target(NODES), {"metadata": {"name": "odd"}, "spec": {"taints": 5}})
    nodes("next")
    await running.until(lambda: "next" in running.sink.present)
    assert "odd" not in running.sink.present
    assert running.reflector.state.bad_objects == 1


def test_stopping_does_not_wait_for_the_server(server: ApiServer, client: KubeClient) -> None:
    """A reflector in the middle of a quiet watch, or of a pause, ends when it is told to."""
    reflector = Reflector(client, "/api/v1/nodes", Node, Names())
    thread = threading.Thread(target=reflector.run)
    thread.start()
    assert reflector.synced.wait(10)
    reflector.stop()
    wait_until(lambda: not thread.is_alive(), what="the end of the thread")


def test_an_exception_of_the_sink_ends_it(server: ApiServer, client: KubeClient) -> None:
    """A sink that raises is a mistake of ours: it is not retried in silence."""

    class Broken(Names):
        """A sink with a mistake."""

        def listed(self, objects: tuple[Node, ...]) -> None:
            """Raise."""
            raise RuntimeError("mistake")

    with pytest.raises(RuntimeError, match="mistake"):
        Reflector(client, "/api/v1/nodes", Node, Broken()).run()


async def test_it_tells_whether_its_watch_is_open(server: ApiServer, kubeconfig: str) -> None:
    """Before the first watch, and between a cut and the next, the sink may be behind."""
    told: list[bool] = []
    aio = await connect_aio(kubeconfig)
    reflector = AioReflector(
        aio, "/api/v1/nodes", Node, Names(), last_pause=0.3, following=told.append
    )
    running = Running(Names(), reflector)
    task = asyncio.create_task(reflector.run())
    await running.until(lambda: told == [False, True])
    server.go_away()
    await running.until(lambda: told[-1] is False)
    assert told.count(True) == 1
    server.come_back()
    await running.until(lambda: told[-1] is True)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await aio.close()
