"""Mirror pods: what the API server shows of static pods. kubelet creates them, again if need be.

A mirror pod has the static pod's name and another UID. Deleting it ends nothing: its static pod
runs on, and kubelet makes a new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from embedded.kubelet.bodies import Body
from embedded.kubelet.static_pods import HASH_KEY, StaticPod
from runtime.objects import Pod

MIRROR_KEY: Final = "kubernetes.io/config.mirror"
"""On a mirror pod: the UID of the static pod that it stands for."""


class Create(msgspec.Struct, frozen=True):
    """Create a mirror pod; its owner, the node, is still to be named."""

    body: Body


class Delete(msgspec.Struct, frozen=True):
    """Delete a mirror pod whose static pod is gone, or another one by now, or that is dying."""

    pod: Pod


def is_mirror(pod: Pod) -> bool:
    """Tell whether a pod of the API server stands for a static one."""
    return pod.metadata.annotation(MIRROR_KEY) is not None


class Mirrors:
    """The static pods and their mirror pods, by ``namespace/name``. Safe to share.

    `changed` is called with a key for which `due` may have something new to say.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._known: dict[str, StaticPod] = {}
        self._admitted: set[str] = set()
        self._shown: dict[str, Pod] = {}
        self._complete = False

    def known(self, pods: Iterable[StaticPod]) -> None:
        """Take these as all static pods there are."""
        with self._lock:
            before = self._known
            self._known = {each.pod.key: each for each in pods}
            self._admitted &= {each.pod.metadata.uid for each in self._known.values()}
            self._complete = True
            keys = before.keys() | self._known.keys() | self._shown.keys()
        self._tell(keys)

    def admitted(self, pod: Pod) -> None:
        """Take it that a static pod runs: from now on it has a mirror pod."""
        with self._lock:
            self._admitted.add(pod.metadata.uid)
        self._tell((pod.key,))

    def listed(self, pods: Iterable[Pod]) -> None:
        """Take these as all mirror pods at the API server."""
        with self._lock:
            before = self._shown
            self._shown = {pod.key: pod for pod in pods}
            keys = before.keys() | self._shown.keys() | self._known.keys()
        self._tell(keys)

    def shown(self, pod: Pod) -> None:
        """Take a new or changed mirror pod."""
        with self._lock:
            self._shown[pod.key] = pod
        self._tell((pod.key,))

    def gone(self, pod: Pod) -> None:
        """Take it that a mirror pod is deleted."""
        with self._lock:
            shown = self._shown.get(pod.key)
            if shown is not None and shown.metadata.uid == pod.metadata.uid:
                del self._shown[pod.key]
        self._tell((pod.key,))

    def static_uid(self, key: str) -> str | None:
        """Return the UID of the static pod of a name, None if there is none."""
        with self._lock:
            known = self._known.get(key)
            return None if known is None else known.pod.metadata.uid

    def stand_in(self, pod: Pod) -> Pod | None:
        """Return which pod of the API server a pod is: itself, or its mirror, None without one."""
        with self._lock:
            known = self._known.get(pod.key)
            if known is None or known.pod.metadata.uid != pod.metadata.uid:
                return pod
            shown = self._shown.get(pod.key)
            return shown if shown is not None and _stands_for(shown, known) else None

    def due(self, key: str) -> Create | Delete | None:
        """Say what is to be done at the API server about a name."""
        with self._lock:
            known, shown = self._known.get(key), self._shown.get(key)
            if shown is not None:
                dying = shown.metadata.deletion_timestamp is not None
                stale = known is None or not _stands_for(shown, known)
                # Until the files were read nobody knows what is stale.
                return Delete(shown) if self._complete and (dying or stale) else None
            if known is None or known.pod.metadata.uid not in self._admitted:
                return None
            meta = {key: value for key, value in known.body["metadata"].items() if key != "uid"}
            notes = {**meta["annotations"], MIRROR_KEY: known.pod.metadata.uid}
            return Create({**known.body, "metadata": {**meta, "annotations": notes}})

    def _tell(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._changed(key)


def _stands_for(shown: Pod, known: StaticPod) -> bool:
    return shown.metadata.annotation(MIRROR_KEY) == known.pod.metadata.annotation(HASH_KEY)
