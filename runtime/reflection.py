"""The rules of list and watch, without a socket, a clock or a thread.

`Reflection` says what to do next (`step`) and is told what came of it. `runtime.reflector` does
it. The rules, each tested:

1. List first; a complete list replaces everything, so a sink drops what vanished meanwhile.
2. Watch from the list's version; the version follows each event and each bookmark.
3. A stream that ends is resumed from the version, at once if it brought something or lived.
4. 410 means the version is too old: list again.
5. Any other failure pauses, longer each time, then resumes; after `TRUST` failures in a row
   the position is not trusted any more and everything is listed again.
6. What cannot be read is counted and reported. A bad object is skipped; after a line that is
   no event at all everything is listed again, since nobody knows what was missed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from runtime.depth import decode_shallow
from runtime.errors import GoneError, KubeError, UnreachableError, api_error
from runtime.objects import UNREADABLE, ListMeta, ObjectMeta

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

FIRST_PAUSE = 0.2
"""Seconds of the shortest pause after a failure."""

LAST_PAUSE = 30.0
"""Seconds of the longest pause after a failure."""

TRUST = 5
"""Failures in a row after which the position in the stream is given up."""

SHORT_LIFE = 1.0
"""A watch that ends sooner than this many seconds and brought nothing counts as a failure."""

WATCH_SECONDS = (300, 600)
"""The server is asked to end a watch after a random time in here, as client-go does."""


class Sink(Protocol[T_contra]):
    """Who is told. Called from one thread or task only; must not block."""

    def listed(self, objects: tuple[T_contra, ...], /) -> None:
        """Take these as all there is, and drop the rest."""

    def changed(self, obj: T_contra, /) -> None:
        """Take a new or changed object."""

    def deleted(self, obj: T_contra, /) -> None:
        """Take the last state of an object that is gone."""


class ListStep(msgspec.Struct, frozen=True):
    """List all pages with this query."""

    query: Mapping[str, str]


class WatchStep(msgspec.Struct, frozen=True):
    """Watch with this query."""

    query: Mapping[str, str]


class PauseStep(msgspec.Struct, frozen=True):
    """Do nothing for some seconds."""

    seconds: float


Step = ListStep | WatchStep | PauseStep


class _Page(msgspec.Struct):
    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: ObjectMeta = ObjectMeta()


class _VersionOnly(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Loose(msgspec.Struct):
    metadata: _VersionOnly = _VersionOnly()


class _Status(msgspec.Struct):
    code: int = 0
    reason: str | None = None
    message: str | None = None


class Reflection(Generic[T]):
    """Where one list and watch stands. `kind` is the struct type of its objects.

    `report` is called with one line for everything that cannot be read. The counters only grow.
    `consistent` never takes a list from a server's cache: for who must not miss what was written
    before the list began, at the price of a quorum read.
    """

    def __init__(
        self,
        kind: type[T],
        sink: Sink[T],
        *,
        rng: random.Random,
        query: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
        last_pause: float = LAST_PAUSE,
        consistent: bool = False,
    ) -> None:
        self._sink = sink
        self._rng = rng
        self._query = dict(query or {})
        self._report = report
        self._last_pause = last_pause
        self._decode_object = msgspec.json.Decoder(kind).decode
        self._decode_page = msgspec.json.Decoder(_Page).decode
        self._decode_event = msgspec.json.Decoder(_Event).decode
        self._decode_loose = msgspec.json.Decoder(_Loose).decode
        self._version: str | None = None
        # Version 0 lets the server answer from its cache; after a 410 the cache may be what is
        # too old, so the next list asks for the newest.
        self._consistent = consistent
        self._from_cache = not consistent
        self._pending: list[T] = []
        self._listed_version = ""
        self._pause = FIRST_PAUSE
        self._owed: float | None = None
        self._proved = False
        self.lists = 0
        self.events = 0
        self.bad_objects = 0
        self.failures = 0
        self.failures_in_a_row = 0

    @property
    def version(self) -> str | None:
        """The version to watch from, None when a list is due."""
        return self._version

    def step(self) -> Step:
        """Say what is to be done now."""
        if self._owed is not None:
            seconds, self._owed = self._owed, None
            return PauseStep(seconds)
        if self._version is None:
            self._pending, self._listed_version, self._proved = [], "", False
            cached = {"resourceVersion": "0"} if self._from_cache else {}
            return ListStep({**self._query, **cached})
        self._proved = False
        return WatchStep(
            {
                **self._query,
                "resourceVersion": self._version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(self._rng.randint(*WATCH_SECONDS)),
            }
        )

    def page(self, body: bytes) -> None:
        """Take one page of a list; `listed` closes it. Raises UnreachableError if unreadable."""
        try:
            page = decode_shallow(self._decode_page, body)
        except UNREADABLE as error:
            raise UnreachableError(f"a list page does not read: {error}") from error
        for raw in page.items or ():
            try:
                self._pending.append(self._decode_object(raw))
            except UNREADABLE as error:
                self._bad(raw, error)
        self._listed_version = page.metadata.resource_version

    def listed(self) -> None:
        """Deliver the pages taken since the step as all there is."""
        if not self._listed_version:
            raise UnreachableError("the list carries no version")
        objects, self._pending = tuple(self._pending), []
        self._version = self._listed_version
        self._from_cache = not self._consistent
        self.lists += 1
        self._sink.listed(objects)

    def line(self, line: bytes) -> None:
        """Take one line of the watch. Raises GoneError and ApiError when the server says so."""
        try:
            event = decode_shallow(self._decode_event, line)
        except UNREADABLE as error:
            self.bad_objects += 1
            self._version = None
            raise UnreachableError(f"a watch line is no event: {error}") from error
        if event.type == "ERROR":
            raise self._told(event.object)
        self._thrive()
        if event.type == "BOOKMARK":
            self._follow(event.object)
            return
        try:
            obj = self._decode_object(event.object)
        except UNREADABLE as error:
            self._bad(event.object, error)
            self._follow(event.object)
            return
        self.events += 1
        if event.type == "DELETED":
            self._sink.deleted(obj)
        elif event.type in {"ADDED", "MODIFIED"}:
            self._sink.changed(obj)
        else:
            self._report(f"an event of unknown type {event.type[:40]!r} is skipped")
        # After the sink: an event that it could not take is not behind us.
        self._follow(event.object)

    def lived(self, seconds: float) -> None:
        """Note how long the watch lived; before `ended` or `failed`."""
        if seconds >= SHORT_LIFE:
            self._thrive()

    def ended(self) -> None:
        """Note that the server ended the watch."""
        if not self._proved:
            self._stumble()

    def failed(self, error: KubeError) -> None:
        """Note that a list or a watch failed."""
        self.failures += 1
        if isinstance(error, GoneError):
            fresh = self._proved
            self._version = None
            self._from_cache = False
            if fresh:
                return
        self._stumble()

    def _stumble(self) -> None:
        self.failures_in_a_row += 1
        # Decorrelated: spreads the clients of a server that comes back.
        self._pause = min(self._last_pause, self._rng.uniform(FIRST_PAUSE, self._pause * 3))
        self._owed = self._pause
        if self.failures_in_a_row % TRUST == 0:
            self._version = None

    def _thrive(self) -> None:
        self._proved = True
        self._pause = FIRST_PAUSE
        self.failures_in_a_row = 0

    def _follow(self, raw: msgspec.Raw) -> None:
        try:
            version = self._decode_loose(raw).metadata.resource_version
        except UNREADABLE:
            return
        if version and self._version is not None:
            self._version = version

    def _bad(self, raw: msgspec.Raw, error: Exception) -> None:
        self.bad_objects += 1
        self._report(f"an object is skipped ({self._name_of(raw)}): {error}")

    @staticmethod
    def _name_of(raw: msgspec.Raw) -> str:
        try:
            meta = msgspec.json.decode(raw, type=_Versioned).metadata
        except UNREADABLE:
            return "its name does not read"
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name

    @staticmethod
    def _told(raw: msgspec.Raw) -> KubeError:
        try:
            status = msgspec.json.decode(raw, type=_Status)
        except UNREADABLE:
            status = _Status()
        return api_error(status.code or 500, status.reason or "Error", status.message or "")
