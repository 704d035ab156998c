"""A watch: what it sends, and what wakes it.

A watch holds no queue. It reads the store's log from its own position whenever its collection
was written, and sends all that is new in one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

import msgspec

from embedded.apiserver.errors import ApiRefusal
from embedded.apiserver.resources import Resource
from embedded.apiserver.selectors import Predicate
from embedded.apiserver.store import Store, event_line


class WatchRequest(msgspec.Struct, frozen=True):
    """What a watch asks for. `version` empty or "0" sends what exists first."""

    resource: Resource
    selects: Predicate | None
    version: str
    bookmarks: bool
    seconds: float


class Bell:
    """Wakes the watches of a collection; `ring` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._rung: set[str] = set()

    def ring(self, collection: str) -> None:
        """Wake all watches of a collection soon."""
        # Many writes before the loop gets to it are one wake-up. Adding comes first: the loop
        # takes the mark away before it wakes, so that no write is missed.
        if collection in self._rung:
            return
        self._rung.add(collection)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake, collection)

    def _wake(self, collection: str) -> None:
        self._rung.discard(collection)
        for event in self._waiting.get(collection, ()):
            event.set()

    @contextlib.contextmanager
    def hear(self, collection: str, event: asyncio.Event) -> Iterator[None]:
        """Set `event` at each ring while this is open."""
        waiting = self._waiting.setdefault(collection, set())
        waiting.add(event)
        try:
            yield
        finally:
            waiting.discard(event)


async def watch(
    store: Store, bell: Bell, asked: WatchRequest, bookmark_seconds: float, heard: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield pieces of one or more whole lines until the time asked for is over.

    Raises ApiRefusal 410 before the first piece when the version is too old; later the refusal
    is the last line, as the protocol has it. `heard` is the event that wakes this watch.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + asked.seconds
    collection = asked.resource.key
    with bell.hear(collection, heard):
        position, first = _begin(store, asked)
        yield first
        bookmark_due = loop.time() + bookmark_seconds
        while True:
            heard.clear()
            try:
                changes = store.since(collection, position)
            except ApiRefusal as refusal:
                yield event_line("ERROR", msgspec.json.encode(refusal.status()))
                return
            if changes:
                position = changes[-1].version
                lines = [line for change in changes if (line := change.line_for(asked.selects))]
                if lines:
                    yield b"".join(lines)
                continue
            now = loop.time()
            if now >= end:
                if asked.bookmarks:
                    yield _bookmark(asked.resource, position)
                return
            if asked.bookmarks and now >= bookmark_due:
                # All of this collection's changes are sent, so other collections' writes up to
                # here are none of this watch's business: the mark may carry the newest version.
                bookmark_due = now + bookmark_seconds
                newest = store.version
                if not store.since(collection, position):
                    position = newest
                    yield _bookmark(asked.resource, position)
                continue
            wait = min(end, bookmark_due) - now if asked.bookmarks else end - now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await heard.wait()


def _begin(store: Store, asked: WatchRequest) -> tuple[int, bytes]:
    if asked.version in {"", "0"}:
        with store.lock:
            present = store.entries(asked.resource.key, asked.selects)
            return store.version, b"".join(event_line("ADDED", entry.raw) for entry in present)
    position = int(asked.version)
    store.since(asked.resource.key, position)  # refuses a version that is too old
    return position, b""


def _bookmark(resource: Resource, version: int) -> bytes:
    return event_line(
        "BOOKMARK",
        msgspec.json.encode(
            {
                "kind": resource.kind,
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
            }
        ),
    )
