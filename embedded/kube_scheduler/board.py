"""All that the scheduling loop and the watches share: the queue, the cache, the waiting pods.

One lock guards it. The watches write, the loop takes pods from it and waits on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from embedded.kube_scheduler.affinity import NO_AFFINITY, NodeAffinity, read_affinity
from embedded.kube_scheduler.cache import ClusterCache, NodeInfo
from embedded.kube_scheduler.events import Event, Plugin, compare_nodes
from embedded.kube_scheduler.preemption import Eviction, priority_of
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
        self._nominated: dict[str, tuple[Pod, Eviction]] = {}
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

    def refuse(self, uid: str, text: str, by: Iterable[Plugin]) -> None:
        """No node suits the pod; keep why, and who said so."""
        with self.changed:
            if uid in self.waiting:
                self.refusals[uid] = text
            self._queue.refuse(uid, self._clock(), by)
            self.changed.notify_all()

    def nominate(self, pod: Pod, eviction: Eviction) -> None:
        """Keep a node's room for a pod: it is not given to others of no higher priority."""
        with self.changed:
            if pod.metadata.uid in self.waiting:
                self._nominated[pod.metadata.uid] = pod, eviction

    def may_preempt(self, uid: str) -> bool:
        """Tell whether all that were evicted for the pod so far are gone."""
        with self.changed:
            _, eviction = self._nominated.get(uid, (None, None))
            victims = eviction.victims if eviction is not None else ()
            return not any(self.cache.knows(victim.metadata.uid) for victim in victims)

    def as_seen_by(self, pod: Pod, info: NodeInfo) -> NodeInfo:
        """Return the node with the pods that are nominated for it and go before this pod."""
        first = [
            other
            for uid, (other, eviction) in self._nominated.items()
            if eviction.node == info.name
            and uid != pod.metadata.uid
            and priority_of(other) >= priority_of(pod)
        ]
        if not first:
            return info
        seen = info.copy()
        for other in first:
            seen.add(other)
        return seen

    def fail(self, uid: str, text: str) -> None:
        """Note an error in trying or binding the pod: forget what was assumed, try later."""
        with self.changed:
            if uid in self.waiting:
                self.refusals[uid] = text
            forgotten = self.cache.forget(uid)
            self._queue.fail(uid, self._clock())
            if forgotten:
                # The GPUs that were counted for it are free again, to others too.
                self._queue.wake(Event.POD_GONE)
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
            if pod.finished:
                self._drop(uid)
                if self.cache.remove_pod(uid):
                    self._queue.wake(Event.POD_GONE)
            elif pod.spec.node_name:
                self._drop(uid)
                known = self.cache.knows(uid)
                self.cache.set_pod(pod)
                self._queue.wake(Event.POD_CHANGED if known else Event.POD_BOUND)
            elif pod.metadata.deletion_timestamp:
                self._drop(uid)
            elif pod.spec.scheduler_name == self.scheduler_name:
                known = uid in self.waiting
                self.waiting[uid] = WaitingPod(pod, whole, affinity)
                self._queue.add(uid, priority_of(pod))
                if known:
                    self._queue.wake(Event.ITSELF, uid)
            self.changed.notify_all()

    def remove_pod(self, uid: str) -> None:
        """Drop a deleted pod."""
        with self.changed:
            self._drop(uid)
            if self.cache.remove_pod(uid):
                self._queue.wake(Event.POD_GONE)
            self.changed.notify_all()

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
            for event in compare_nodes(before, node):
                self._queue.wake(event)
            self.changed.notify_all()

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
        self._nominated.pop(uid, None)
