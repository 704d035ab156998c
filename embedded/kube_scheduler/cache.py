"""What kube-scheduler believes of the nodes: allocatable, and what assigned and assumed pods take.

Pure and not thread-safe: its owner holds a lock. A pod is *assumed* on its node from the moment it
is chosen until its binding is seen by watch, or fails and the pod is forgotten.
"""

from __future__ import annotations

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
        self.requests: dict[str, Amounts] = {}

    def update(self, node: Node | None) -> None:
        """Take over the node's newest object; None if only its pods are known."""
        self.node = node
        self.allocatable = read_amounts(node.status.allocatable) if node else {}

    def add(self, uid: str, request: Amounts) -> None:
        """Count a pod; counting it again changes nothing."""
        if uid not in self.requests:
            self.requests[uid] = request
            add(self.requested, request)
            add(self.scored, scored(request))

    def remove(self, uid: str) -> None:
        """Uncount a pod."""
        request = self.requests.pop(uid, None)
        if request is not None:
            add(self.requested, request, -1)
            add(self.scored, scored(request), -1)

    def left(self, name: str) -> int:
        """Return allocatable minus requested; negative when devices in use went unhealthy."""
        return self.allocatable.get(name, 0) - self.requested.get(name, 0)


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
        self._place(uid, pod.spec.node_name, request_of(pod))

    def remove_pod(self, uid: str) -> None:
        """Drop a pod that was deleted or has finished."""
        self._assumed.discard(uid)
        node = self._where.pop(uid, None)
        if node is not None:
            self._nodes[node].remove(uid)

    def assume(self, uid: str, node: str, request: Amounts) -> None:
        """Count a pod on the node that was chosen, before it is bound."""
        self._assumed.add(uid)
        self._place(uid, node, request)

    def forget(self, uid: str) -> bool:
        """Uncount a pod whose binding failed, unless the watch has shown it bound after all.

        Returns whether anything was counted for it.
        """
        if uid not in self._assumed:
            return False
        self.remove_pod(uid)
        return True

    def _info(self, name: str) -> NodeInfo:
        return self._nodes.setdefault(name, NodeInfo(name))

    def _place(self, uid: str, node: str, request: Amounts) -> None:
        before = self._where.get(uid)
        if before is not None and before != node:
            self._nodes[before].remove(uid)
        self._where[uid] = node
        self._info(node).add(uid, request)
