"""Pods that the samples cannot show yet: what they will use is estimated by their requests.

A pod that is bound uses nothing until its containers run, and an average over two minutes shows
half of it after one. Without the estimate every pod between two samples would go to the node that
was the coldest in the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec
import numpy as np

from runtime.errors import QuantityError
from runtime.objects import Container, Pod
from runtime.quantity import parse_quantity
from scheduler.engine.arrays import FloatArray
from scheduler.load.nodes import NodeSize, Report, share
from scheduler.load.samples import METRICS

_CPU: Final = METRICS.index("cpu")
_MEMORY: Final = METRICS.index("memory")
_GPU: Final = METRICS.index("gpu")


class RecentPod(msgspec.Struct, frozen=True):
    """What a bound pod asks for (CPUs, bytes, GPUs), and since when it runs.

    `started` is in Unix seconds, None while its containers do not run yet.
    """

    node: str
    cpu: float
    memory: float
    gpus: float
    started: float | None


class RecentPods:
    """The pods that some sample may not show. `clock` gives Unix seconds.

    A pod is forgotten when it has run for `remember_seconds`: every sample in use is then newer.
    """

    def __init__(
        self, resource: str, remember_seconds: float, clock: Callable[[], float], report: Report
    ) -> None:
        self._resource = resource
        self._remember = remember_seconds
        self._clock = clock
        self._report = report
        self._pods: dict[str, RecentPod] = {}
        self._by_node: dict[str, dict[str, RecentPod]] = {}

    def __len__(self) -> int:
        return len(self._pods)

    @property
    def nodes(self) -> Iterable[str]:
        """The nodes that have such pods."""
        return self._by_node.keys()

    def on(self, node: str) -> tuple[RecentPod, ...]:
        """Return the pods of a node."""
        return tuple(self._by_node.get(node, {}).values())

    def take(self, pod: Pod) -> str | None:
        """Take a pod's new state; returns the node whose estimate changed."""
        uid, node = pod.metadata.uid, pod.spec.node_name
        if not node or pod.finished:
            return self.drop(uid)
        known = self._pods.get(uid)
        running = pod.status.phase != "Pending"
        if known is not None:
            if known.started is not None or not running:
                return None
            return self._put(uid, msgspec.structs.replace(known, started=self._clock()))
        started = None
        if running:
            # Seen for the first time: after a restart of ours, or after a gap in the watch.
            started = _read_time(pod.status.start_time)
            if started is None or self._clock() - started > self._remember:
                return None
        cpu, memory, gpus = (
            self._requested(pod, resource) for resource in ("cpu", "memory", self._resource)
        )
        return self._put(uid, RecentPod(node, cpu, memory, gpus, started))

    def keep(self, pods: tuple[Pod, ...]) -> None:
        """Take a complete list."""
        listed = {pod.metadata.uid for pod in pods}
        for uid in [uid for uid in self._pods if uid not in listed]:
            self.drop(uid)
        for pod in pods:
            self.take(pod)

    def drop(self, uid: str) -> str | None:
        """Forget a pod; returns the node whose estimate changed."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return None
        left = self._by_node[pod.node]
        del left[uid]
        if not left:
            del self._by_node[pod.node]
        return pod.node

    def forget(self, now: float) -> None:
        """Drop the pods that every sample in use shows."""
        shown = [
            uid
            for uid, pod in self._pods.items()
            if pod.started is not None and now - pod.started > self._remember
        ]
        for uid in shown:
            self.drop(uid)

    def _put(self, uid: str, pod: RecentPod) -> str:
        self._pods[uid] = pod
        self._by_node.setdefault(pod.node, {})[uid] = pod
        return pod.node

    def _requested(self, pod: Pod, resource: str) -> float:
        """Return what a pod asks for: containers and sidecars, or the largest init container."""
        together, alone = 0.0, 0.0
        try:
            for container in pod.spec.init_containers or ():
                amount = _amount(container, resource)
                if container.restart_policy == "Always":
                    together += amount
                else:
                    alone = max(alone, amount)
            together += sum(_amount(container, resource) for container in pod.spec.containers)
        except (QuantityError, OverflowError) as error:
            self._report("pod", pod.key, f"{resource}: {error}")
            return 0.0
        return max(together, alone)


def estimate(
    pods: Iterable[RecentPod], size: NodeSize, taken: FloatArray, windows: FloatArray
) -> FloatArray:
    """Return what a node's samples do not show, by metric (METRICS): shares of the allocatable.

    `taken` and `windows` are those of the node's samples. Network and disk are not requested, so
    nothing is estimated for them.
    """
    missing = np.zeros(len(METRICS))
    for pod in pods:
        asked = np.zeros(len(METRICS))
        asked[_CPU] = share(pod.cpu, size.cpu)
        asked[_MEMORY] = share(pod.memory, size.memory)
        asked[_GPU] = share(pod.gpus, size.gpus)
        missing += asked * unseen(pod.started, taken, windows)
    return missing


def unseen(started: float | None, taken: FloatArray, windows: FloatArray) -> FloatArray:
    """Return how much of a pod samples do not show: 1 before it started, 0 a window later.

    >>> unseen(100.0, np.array([99.0, 101.0, 130.0, 160.0]), np.array([0.0, 0.0, 60.0, 60.0]))
    array([1. , 0. , 0.5, 0. ])
    """
    if started is None:
        return np.ones_like(taken)
    late = started + windows - taken
    part: FloatArray = np.clip(late / np.where(windows > 0, windows, 1.0), 0.0, 1.0)
    result: FloatArray = np.where(windows > 0, part, (taken < started).astype(np.float64))
    return np.where(np.isnan(taken), 1.0, result)


def _amount(container: Container, resource: str) -> float:
    resources = container.resources
    if resources is None:
        return 0.0
    for amounts in (resources.requests, resources.limits):
        if amounts and resource in amounts:
            return max(float(parse_quantity(amounts[resource])), 0.0)
    return 0.0


def _read_time(text: str | None) -> float | None:
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
