"""The verbs of the API on a store: create, get, list, update, patch, delete, bind.

Pure but for the store that it writes; time, identity and chance are arguments. Serves requests of
the HTTP edge and of code in the same process alike. Objects are JSON values that nobody may change.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from embedded.apiserver.binding import bind_pod, check_preconditions
from embedded.apiserver.deletion import deletion_grace
from embedded.apiserver.errors import already_exists, bad_request, not_found
from embedded.apiserver.objects import merge_patch, prepare_new, prepare_update
from embedded.apiserver.priority import admit_priority
from embedded.apiserver.resources import PODS, PRIORITY_CLASSES, Target
from embedded.apiserver.selectors import compile_selectors
from embedded.apiserver.store import Entry, Object, Store

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names: no vowels, nothing that looks like another."""


class Page(msgspec.Struct, frozen=True):
    """A page of a list."""

    version: int
    entries: list[Entry]
    token: str
    remaining: int


class Api:
    """The verbs. Each raises ApiRefusal with the code that a real server would answer."""

    def __init__(self, store: Store, *, now: Callable[[], str], rng: random.Random) -> None:
        self.store = store
        self._now = now
        self._rng = rng

    def get(self, target: Target) -> Entry:
        """Read one object."""
        entry = self.store.get(target.resource.key, target.namespace, target.name)
        if entry is None:
            raise not_found(target.resource.plural, target.name)
        return entry

    def list(
        self, target: Target, labels: str = "", fields: str = "", limit: int = 0, token: str = ""
    ) -> Page:
        """Read a collection, or the next page of it."""
        selects = compile_selectors(target.resource, target.namespace, labels, fields)
        return Page(*self.store.page(target.resource.key, selects, limit, token))

    def create(self, target: Target, body: Object, *, dry_run: bool = False) -> Entry:
        """Create an object; the server fills in its identity."""
        resource = target.resource
        with self.store.lock:
            made = prepare_new(
                target, body, uid=self._uid(), now=self._now(), suffix=self._five_letters()
            )
            if resource is PODS:
                made = admit_priority(made, self._priority_class)
            name = made["metadata"]["name"]
            if self.store.get(resource.key, target.namespace, name):
                raise already_exists(resource.plural, name)
            return self._keep(target, made, dry_run=dry_run)

    def update(self, target: Target, body: Object, *, dry_run: bool = False) -> Entry:
        """Replace an object, or its status when the target is that subresource."""
        with self.store.lock:
            old = self.get(target)
            made = prepare_update(
                target.resource, old.object, body, status=target.subresource == "status"
            )
            return self._settle(target, old, made, dry_run=dry_run)

    def patch(self, target: Target, patch: Object, *, dry_run: bool = False) -> Entry:
        """Apply a merge patch; a resourceVersion or uid in it is a precondition."""
        with self.store.lock:
            old = self.get(target)
            if not isinstance(patch.get("metadata", {}), dict):
                raise bad_request("metadata of the patch is not an object")
            made = prepare_update(
                target.resource,
                old.object,
                merge_patch(old.object, patch),
                status=target.subresource == "status",
            )
            return self._settle(target, old, made, dry_run=dry_run)

    def delete(self, target: Target, options: Object | None = None) -> Entry:
        """Delete at once, or mark what finalizers hold, or what its kubelet has yet to end."""
        wanted = (options or {}).get("preconditions") or {}
        with self.store.lock:
            old = self.get(target)
            check_preconditions(old.object, wanted, target.resource.plural)
            meta = old.object["metadata"]
            grace = 0
            if target.resource is PODS:
                grace = deletion_grace(old.object, (options or {}).get("gracePeriodSeconds"))
            if not grace and not meta.get("finalizers"):
                return self.store.remove(target.resource.key, *old.name)
            if meta.get("deletionTimestamp") and grace == meta.get("deletionGracePeriodSeconds"):
                return old
            marked = {
                **meta,
                "deletionTimestamp": self._now(),
                "deletionGracePeriodSeconds": grace,
            }
            return self.store.write(target.resource.key, {**old.object, "metadata": marked})

    def bind(self, target: Target, binding: Object, *, dry_run: bool = False) -> Entry:
        """Bind the pod that the target names, or the Binding itself in the old collection."""
        name = target.name or (binding.get("metadata") or {}).get("name")
        if not isinstance(name, str) or not name:
            raise bad_request("the Binding names no pod")
        pod = Target(PODS, target.namespace, name)
        with self.store.lock:
            bound = bind_pod(self.get(pod).object, binding, self._now())
            return self._keep(pod, bound, dry_run=dry_run)

    def _priority_class(self, name: str) -> Object | None:
        entry = self.store.get(PRIORITY_CLASSES.key, "", name)
        return None if entry is None else entry.object

    def _settle(self, target: Target, old: Entry, made: Object, *, dry_run: bool) -> Entry:
        if made == old.object:
            return old  # no change, no version, no event: as the real server
        meta = made["metadata"]
        waits = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        if meta.get("deletionTimestamp") and not waits:
            return old if dry_run else self.store.remove(target.resource.key, *old.name)
        return self._keep(target, made, dry_run=dry_run)

    def _keep(self, target: Target, made: Object, *, dry_run: bool) -> Entry:
        if dry_run:
            name = (target.namespace, made["metadata"]["name"])
            return Entry(name, made, msgspec.json.encode(made), 0)
        return self.store.write(target.resource.key, made)

    def _uid(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def _five_letters(self) -> str:
        return "".join(self._rng.choices(_SUFFIX, k=5))


def decode_body(body: bytes) -> dict[str, Any]:
    """Read a request body. Raises ApiRefusal 400 for what is no JSON object."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body of the request does not decode: {error}") from error
    if not isinstance(decoded, dict):
        raise bad_request("the body of the request is not an object")
    return decoded
