"""What the API server says of nodes and pods, followed by watch: for the view and for the faults.

The books are made from a fresh list at the end (`embedded.reports`), not from here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from runtime.kube import KubeClient
from runtime.objects import Node, Pod
from runtime.quantity import parse_count
from runtime.reflector import Reflector
from topology.errors import TopologyError
from topology.model import NodeTopology
from topology.wire import STATE_KEY, TOPOLOGY_KEY, NodeState, decode_state, decode_topology

T = TypeVar("T", Node, Pod)


class _Mirror(Generic[T]):
    """The newest object of each key."""

    def __init__(self, key: Callable[[T], str]) -> None:
        self._key: Callable[[T], str] = key
        self._lock = threading.Lock()
        self._objects: dict[str, T] = {}

    def listed(self, objects: tuple[T, ...], /) -> None:
        with self._lock:
            self._objects = {self._key(each): each for each in objects}

    def changed(self, obj: T, /) -> None:
        with self._lock:
            self._objects[self._key(obj)] = obj

    def deleted(self, obj: T, /) -> None:
        with self._lock:
            self._objects.pop(self._key(obj), None)

    def all(self) -> dict[str, T]:
        with self._lock:
            return dict(self._objects)


class Observation:
    """Nodes by name and pods by UID, as they stand."""

    def __init__(self, client: KubeClient, resource: str) -> None:
        self._resource = resource
        self._nodes: _Mirror[Node] = _Mirror(lambda node: node.metadata.name)
        self._pods: _Mirror[Pod] = _Mirror(lambda pod: pod.metadata.uid)
        self._reflectors = (
            Reflector(client, "/api/v1/nodes", Node, self._nodes, last_pause=1.0),
            Reflector(client, "/api/v1/pods", Pod, self._pods, last_pause=1.0),
        )
        self._threads = [
            threading.Thread(target=reflector.run, name="observation", daemon=True)
            for reflector in self._reflectors
        ]
        # Decoding 16 KiB of topology for each picture would cost more than drawing it.
        self._topologies: dict[str, tuple[str, NodeTopology]] = {}

    def start(self) -> None:
        """Start following."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop following; what was seen stays."""
        for reflector in self._reflectors:
            reflector.stop()
        for thread in self._threads:
            thread.join(10)

    def nodes(self) -> dict[str, Node]:
        """Return the nodes by name."""
        return self._nodes.all()

    def pods(self) -> dict[str, Pod]:
        """Return the pods by UID."""
        return self._pods.all()

    def gpus_of(self, node: str) -> int:
        """Return how many GPUs the node may give out now; -1 if it never advertised any."""
        seen = self.nodes().get(node)
        allocatable = (seen.status.allocatable or {}) if seen else {}
        return parse_count(allocatable[self._resource]) if self._resource in allocatable else -1

    def topology_of(self, node: str) -> NodeTopology | None:
        """Return the topology that the node's plugin published, None if there is none to read."""
        seen = self.nodes().get(node)
        text = seen.metadata.annotation(TOPOLOGY_KEY) if seen else None
        if text is None:
            return None
        known = self._topologies.get(node)
        if known is None or known[0] != text:
            try:
                known = self._topologies[node] = (text, decode_topology(text))
            except TopologyError:
                return None
        return known[1]

    def state_of(self, node: str) -> NodeState | None:
        """Return the state that the node's plugin published, None if there is none to read."""
        seen = self.nodes().get(node)
        text = seen.metadata.annotation(STATE_KEY) if seen else None
        try:
            return None if text is None else decode_state(text)
        except TopologyError:
            return None
