"""A versioned store with an event log: what etcd and the watch cache are to a real API server.

One counter versions all collections. Every write appends one `Change` to its collection's log;
watches read the log from their version on, so a slow reader costs nothing and is told 410 when it
falls off the end. Objects are plain JSON values, encoded once at the write; they must not be
changed after they were handed in or out. Safe between threads.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from embedded.apiserver.errors import expired
from embedded.apiserver.selectors import Predicate

Object = dict[str, Any]
Name = tuple[str, str]
"""Namespace (empty for cluster-wide kinds) and name."""

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

HISTORY = 4096
"""Changes kept per collection; a real server keeps about five minutes."""

SNAPSHOTS = 32
"""Paged lists under way that are kept; the oldest expires."""

_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """One state of one object."""

    name: Name
    object: Object
    raw: bytes
    version: int


class Change:
    """One write. `before` is None for a create; a delete's `after` is the last state."""

    __slots__ = ("_lines", "after", "before", "type", "version")

    def __init__(self, version: int, type_: ChangeType, before: Entry | None, after: Entry) -> None:
        self.version = version
        self.type = type_
        self.before = before
        self.after = after
        self._lines: dict[str, bytes] = {}

    def line_for(self, selects: Predicate | None) -> bytes | None:
        """Return the watch line for a watcher with this selector, None if it concerns it not.

        An object that starts to match is ADDED to that watcher, one that ceases is DELETED.
        """
        if selects is None:
            return self._line(self.type)
        was = self.before is not None and selects(self.before.object)
        now = self.type != "DELETED" and selects(self.after.object)
        if now:
            return self._line("MODIFIED" if was else "ADDED")
        return self._line("DELETED") if was else None

    def _line(self, type_: str) -> bytes:
        # Encoded at most three times, whatever the number of watchers.
        line = self._lines.get(type_)
        if line is None:
            line = self._lines[type_] = event_line(type_, self.after.raw)
        return line


def event_line(type_: str, raw: bytes) -> bytes:
    """Write a watch event with its newline."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), raw)


class _Collection:
    def __init__(self) -> None:
        self.entries: dict[Name, Entry] = {}
        self.log: list[Change] = []
        self.forgotten = 0  # the version of the youngest change that is not in the log any more


class Store:
    """All objects. Nothing here knows what they mean."""

    def __init__(self, history: int = HISTORY) -> None:
        self._lock = threading.RLock()
        self._history = history
        self._version = 0
        self._collections: dict[str, _Collection] = {}
        self._tokens = 0
        self._snapshots: dict[str, tuple[int, list[Entry]]] = {}
        self._listeners: list[Callable[[str], None]] = []

    @property
    def version(self) -> int:
        """The version of the last write; 0 for an empty store."""
        return self._version

    @property
    def lock(self) -> threading.RLock:
        """Held around a read and the write that depends on it."""
        return self._lock

    def get(self, collection: str, namespace: str, name: str) -> Entry | None:
        """Return an object's present state."""
        return self._of(collection).entries.get((namespace, name))

    def entries(self, collection: str, selects: Predicate | None = None) -> list[Entry]:
        """Return all present states that match, by namespace and name."""
        with self._lock:
            present = list(self._of(collection).entries.values())
        found = present if selects is None else [e for e in present if selects(e.object)]
        return sorted(found, key=lambda entry: entry.name)

    def write(self, collection: str, obj: Object) -> Entry:
        """Create or replace the object that `obj` names, under a new version."""
        meta = obj["metadata"]
        name = (meta.get("namespace", ""), meta["name"])
        with self._lock:
            kept = self._of(collection)
            before = kept.entries.get(name)
            after = self._stamp(obj, name)
            kept.entries[name] = after
            self._append(collection, kept, "MODIFIED" if before else "ADDED", before, after)
        return after

    def remove(self, collection: str, namespace: str, name: str) -> Entry:
        """Delete an object; its last state carries the version of the deletion."""
        with self._lock:
            kept = self._of(collection)
            before = kept.entries.pop((namespace, name))
            after = self._stamp(dict(before.object), before.name)
            self._append(collection, kept, "DELETED", before, after)
        return after

    def page(
        self, collection: str, selects: Predicate | None, limit: int, token: str
    ) -> tuple[int, list[Entry], str, int]:
        """Return a page of a consistent list: version, entries, next token, how many remain.

        `limit` 0 takes all. Raises ApiRefusal 410 for a token that is not known any more.
        """
        with self._lock:
            if token:
                if token not in self._snapshots:
                    raise expired("The provided continue parameter is too old")
                version, entries = self._snapshots[token]
            else:
                version, entries = self._version, self.entries(collection, selects)
            if not limit or len(entries) <= limit:
                return version, entries, "", 0
            page, rest = entries[:limit], entries[limit:]
            self._tokens += 1
            following = f"{version}-{self._tokens}"
            self._snapshots[following] = (version, rest)
            while len(self._snapshots) > SNAPSHOTS:
                del self._snapshots[next(iter(self._snapshots))]
            return version, page, following, len(rest)

    def since(self, collection: str, version: int) -> list[Change]:
        """Return the changes after `version`. Raises ApiRefusal 410 when some are forgotten."""
        with self._lock:
            kept = self._of(collection)
            if version < kept.forgotten:
                raise expired(f"too old resource version: {version} ({kept.forgotten})")
            log = kept.log
            # Most readers are one change behind: no search.
            if not log or log[-1].version <= version:
                return []
            return log[bisect_right(log, version, key=lambda change: change.version) :]

    def compact(self) -> None:
        """Forget all history: older versions and continue tokens are answered with 410."""
        with self._lock:
            self._snapshots.clear()
            for kept in self._collections.values():
                kept.log.clear()
                kept.forgotten = self._version

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the collection after each write, from the writer's thread."""
        self._listeners.append(listener)

    def _of(self, collection: str) -> _Collection:
        kept = self._collections.get(collection)
        if kept is None:
            kept = self._collections.setdefault(collection, _Collection())
        return kept

    def _stamp(self, obj: Object, name: Name) -> Entry:
        self._version += 1
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self._version)}
        return Entry(name, obj, _encode(obj), self._version)

    def _append(
        self,
        collection: str,
        kept: _Collection,
        type_: ChangeType,
        before: Entry | None,
        after: Entry,
    ) -> None:
        kept.log.append(Change(after.version, type_, before, after))
        if len(kept.log) >= 2 * self._history:
            kept.forgotten = kept.log[-self._history - 1].version
            del kept.log[: -self._history]
        for listener in self._listeners:
            listener(collection)
