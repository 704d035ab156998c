"""All that the scheduling loop and the watches share: the queue, the cache, the waiting pods.

One lock guards it. The watches write, the loop takes pods from it and waits on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from embedded.kube_scheduler.affinity import NO_AFFINITY, NodeAffinity, read_affinity
from embedded.kube_scheduler.cache import ClusterCache, NodeInfo
from embedded.kube_scheduler.queue import Backoff, SchedulingQueue
from runtime.objects import Node, Pod

_LONGEST_WAIT: Final = 1.0


class WaitingPod(msgspec.Struct, frozen=True):
    """A pod without a node: what we read of it, and the whole object for the extender."""

    pod: Pod
    whole: dict[str, Any]
    affinity: NodeAffinity = NO_AFFINITY


class Board:
    """The shared state. `clock` is monotonic seconds."""

    def __init__(self, scheduler_name: str, backoff: Backoff, clock: Callable[[], float]) -> None:
        self.scheduler_name = scheduler_name
        self.cache = ClusterCache()
        self.waiting: dict[str, WaitingPod] = {}
        self.refusals: dict[str, str] = {}
        self.changed = threading.Condition()
        self._queue = SchedulingQueue(backoff)
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._closed = False

    def close(self) -> None:
        """Wake the loop for the last time."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def take(self) -> tuple[WaitingPod, list[NodeInfo]] | None:
        """Wait for the next pod that is due; None once the board is closed."""
        with self.changed:
            while not self._closed:
                now = self._clock()
                uid = self._queue.pop(now)
                if uid is not None and uid in self.waiting:
                    return self.waiting[uid], self.cache.nodes()
                due = self._queue.next_time()
                wait = _LONGEST_WAIT if due is None else min(_LONGEST_WAIT, max(due - now, 0))
                if uid is None:
                    self.changed.wait(wait)
            return None

    def refuse(self, uid: str, text: str) -> None:
        """No node suits the pod; keep why."""
        with self.changed:
            if uid in self.waiting:
                self.refusals[uid] = text
            self._queue.refuse(uid, self._clock())

    def fail(self, uid: str, text: str) -> None:
        """Note an error in trying or binding the pod: forget what was assumed, try later."""
        with self.changed:
            if uid in self.waiting:
                self.refusals[uid] = text
            forgotten = self.cache.forget(uid)
            self._queue.fail(uid, self._clock())
            if forgotten:
                # The GPUs that were counted for it are free again, to others too.
                self._wake()
            else:
                self.changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether no pod would be tried until something happens."""
        with self.changed:
            return self._queue.idle

    def set_pod(self, whole: dict[str, Any]) -> None:
        """Take a pod's newest object; one that does not read is left out."""
        try:
            pod = msgspec.convert(whole, Pod)
            affinity = read_affinity(whole)
        except msgspec.ValidationError:
            return
        uid = pod.metadata.uid
        with self.changed:
            if pod.spec.node_name or pod.finished:
                self._drop(uid)
                self.cache.set_pod(pod)
                if pod.finished:
                    self._wake()
            elif pod.metadata.deletion_timestamp:
                self._drop(uid)
            elif pod.spec.scheduler_name == self.scheduler_name:
                self.waiting[uid] = WaitingPod(pod, whole, affinity)
                self._queue.add(uid, pod.spec.priority or 0)
            self.changed.notify_all()

    def remove_pod(self, uid: str) -> None:
        """Drop a deleted pod."""
        with self.changed:
            self._drop(uid)
            self.cache.remove_pod(uid)
            self._wake()

    def known_pods(self) -> set[str]:
        """Return the UIDs of all pods there are, to find those that a new list lacks."""
        with self.changed:
            return self.cache.pods() | set(self.waiting)

    def set_node(self, node: Node) -> None:
        """Take a node's newest object; waiting pods wake only if it changed in what they see."""
        with self.changed:
            before = self._nodes.get(node.metadata.name)
            self._nodes[node.metadata.name] = node
            self.cache.set_node(node)
            if before is None or _visible(before) != _visible(node):
                self._wake()

    def remove_node(self, name: str) -> None:
        """Drop a deleted node."""
        with self.changed:
            self._nodes.pop(name, None)
            self.cache.remove_node(name)

    def known_nodes(self) -> set[str]:
        """Return the names of all nodes there are."""
        with self.changed:
            return set(self._nodes)

    def _drop(self, uid: str) -> None:
        self._queue.forget(uid)
        self.waiting.pop(uid, None)
        self.refusals.pop(uid, None)

    def _wake(self) -> None:
        self._queue.wake(self._clock())
        self.changed.notify_all()


def _visible(node: Node) -> object:
    """Return what filters look at; a heartbeat changes none of it."""
    conditions = [(each.type, each.status) for each in node.status.conditions or ()]
    return (
        node.spec,
        node.status.allocatable,
        node.metadata.labels,
        node.metadata.annotations,
        conditions,
    )
