"""What kube-scheduler believes of the nodes: allocatable, and what assigned and assumed pods take.

Pure and not thread-safe: its owner holds a lock. A pod is *assumed* on its node from the moment it
is chosen until its binding is seen by watch, or fails and the pod is forgotten.
"""

from __future__ import annotations

from typing import Self

from embedded.kube_scheduler.amounts import Amounts, add, read_amounts, request_of, scored
from runtime.objects import Node, Pod


class NodeInfo:
    """One node as the filters see it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.allocatable: Amounts = {}
        self.requested: Amounts = {}
        self.scored: Amounts = {}
        self.pods: dict[str, Pod] = {}

    def copy(self) -> Self:
        """Return a node that can be tried without changing this one."""
        other = self.__class__(self.name)
        other.node, other.allocatable = self.node, self.allocatable
        other.requested, other.scored = dict(self.requested), dict(self.scored)
        other.pods = dict(self.pods)
        return other

    def update(self, node: Node | None) -> None:
        """Take over the node's newest object; None if only its pods are known."""
        self.node = node
        self.allocatable = read_amounts(node.status.allocatable) if node else {}

    def add(self, pod: Pod) -> None:
        """Count a pod; counting it again changes nothing."""
        if pod.metadata.uid not in self.pods:
            self._count(pod, 1)
        self.pods[pod.metadata.uid] = pod

    def remove(self, uid: str) -> None:
        """Uncount a pod."""
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)

    def left(self, name: str) -> int:
        """Return allocatable minus requested; negative when devices in use went unhealthy."""
        return self.allocatable.get(name, 0) - self.requested.get(name, 0)

    def _count(self, pod: Pod, sign: int) -> None:
        request = request_of(pod)
        add(self.requested, request, sign)
        add(self.scored, scored(request), sign)


class ClusterCache:
    """All nodes, and on which node each pod counts."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._where: dict[str, str] = {}
        self._assumed: set[str] = set()

    def nodes(self) -> list[NodeInfo]:
        """Return the nodes that exist, by name."""
        return [info for _, info in sorted(self._nodes.items()) if info.node is not None]

    def pods(self) -> set[str]:
        """Return the UIDs of the pods that count, but for those only assumed."""
        return set(self._where) - self._assumed

    def knows(self, uid: str) -> bool:
        """Tell whether a pod counts, not only assumed."""
        return uid in self._where and uid not in self._assumed

    def set_node(self, node: Node) -> None:
        """Take a node's newest object."""
        self._info(node.metadata.name).update(node)

    def remove_node(self, name: str) -> None:
        """Drop a node; its pods stay counted until they go."""
        self._info(name).update(None)

    def set_pod(self, pod: Pod) -> None:
        """Take an assigned pod's newest object; a finished one no longer counts."""
        uid = pod.metadata.uid
        if pod.finished or not pod.spec.node_name:
            self.remove_pod(uid)
            return
        self._assumed.discard(uid)
        self._place(pod, pod.spec.node_name)

    def remove_pod(self, uid: str) -> bool:
        """Drop a pod that was deleted or has finished; returns whether it counted."""
        self._assumed.discard(uid)
        node = self._where.pop(uid, None)
        if node is not None:
            self._nodes[node].remove(uid)
        return node is not None

    def assume(self, pod: Pod, node: str) -> None:
        """Count a pod on the node that was chosen, before it is bound."""
        self._assumed.add(pod.metadata.uid)
        self._place(pod, node)

    def forget(self, uid: str) -> bool:
        """Uncount a pod whose binding failed, unless the watch has shown it bound after all.

        Returns whether anything was counted for it.
        """
        return uid in self._assumed and self.remove_pod(uid)

    def _info(self, name: str) -> NodeInfo:
        return self._nodes.setdefault(name, NodeInfo(name))

    def _place(self, pod: Pod, node: str) -> None:
        uid = pod.metadata.uid
        before = self._where.get(uid)
        if before is not None and before != node:
            self._nodes[before].remove(uid)
        self._where[uid] = node
        self._info(node).add(pod)
