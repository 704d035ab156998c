"""An inventory to show objects to."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.objects import Node, Pod
from scheduler.engine.cluster import ClusterState
from scheduler.kube.inventory import Inventory
from tests.scheduler.nodes import RESOURCE, node_object, pod_object
from topology.gpuset import format_positions
from topology.tables import DEFAULT_MIX


def cpu_pod(uid: str, cpu: str, **given: Any) -> dict[str, Any]:
    """Give the arguments of a pod that asks for CPU alone."""
    main = {"name": "main", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}
    return {"name": uid, "uid": uid, "node": "n", "containers": [main], **given}


class Watched:
    """An inventory that is told of objects as a reflector tells it."""

    def __init__(self) -> None:
        self.cluster = ClusterState(DEFAULT_MIX)
        self.reports: list[tuple[str, str, str]] = []
        self.inventory = Inventory(
            self.cluster, RESOURCE, lambda *report: self.reports.append(report)
        )

    def node(self, *args: Any, **given: Any) -> None:
        """Show a node."""
        self.inventory.nodes.changed(msgspec.convert(node_object(*args, **given), Node))

    def pod(self, *args: Any, **given: Any) -> None:
        """Show a pod."""
        self.inventory.pods.changed(msgspec.convert(pod_object(*args, **given), Pod))

    def gone(self, uid: str) -> None:
        """Show a pod's deletion."""
        gone = msgspec.convert(pod_object("gone", 1, uid=uid), Pod)
        self.inventory.pods.deleted(gone)

    @property
    def free(self) -> str:
        """The free positions of the node n, with an exclamation mark if it is held back."""
        columns = self.cluster.columns
        row = columns.rows["n"]
        held = "!" if columns.held_back[row] else ""
        return format_positions(columns.free_set(row)) + held
