"""Which event can help a pod that was refused: kube-scheduler's queueing hints, as data.

A pod waits until something happens that one of those who refused it asked to be told of. An
extender cannot say what would help, so everything might: each event wakes each such pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from runtime.objects import Node


class Event(Enum):
    """What happens to a node, to a pod on a node, or to the waiting pod itself."""

    NODE_ADDED = "node added"
    NODE_ALLOCATABLE = "node allocatable changed"
    NODE_LABELS = "node labels changed"
    NODE_TAINTS = "node taints changed"
    NODE_ANNOTATIONS = "node annotations changed"
    NODE_CONDITIONS = "node conditions changed"
    POD_BOUND = "pod bound"
    POD_CHANGED = "pod on a node changed"
    POD_GONE = "pod on a node gone"
    ITSELF = "the pod itself changed"


class Plugin(Enum):
    """Who refuses a node."""

    NODE_UNSCHEDULABLE = "NodeUnschedulable"
    NODE_READY = "NodeReady"
    TAINT_TOLERATION = "TaintToleration"
    NODE_AFFINITY = "NodeAffinity"
    NODE_RESOURCES_FIT = "NodeResourcesFit"
    EXTENDER = "extender"


HELPS: Final[Mapping[Plugin, frozenset[Event]]] = {
    Plugin.NODE_UNSCHEDULABLE: frozenset({Event.NODE_ADDED, Event.NODE_TAINTS}),
    Plugin.NODE_READY: frozenset({Event.NODE_ADDED, Event.NODE_CONDITIONS}),
    Plugin.TAINT_TOLERATION: frozenset({Event.NODE_ADDED, Event.NODE_TAINTS}),
    Plugin.NODE_AFFINITY: frozenset({Event.NODE_ADDED, Event.NODE_LABELS}),
    Plugin.NODE_RESOURCES_FIT: frozenset(
        {Event.NODE_ADDED, Event.NODE_ALLOCATABLE, Event.POD_GONE}
    ),
    Plugin.EXTENDER: frozenset(Event),
}


def compare_nodes(before: Node | None, after: Node) -> frozenset[Event]:
    """Return what happened to a node. A heartbeat changes nothing of it."""
    if before is None:
        return frozenset({Event.NODE_ADDED})
    pairs = (
        (Event.NODE_ALLOCATABLE, before.status.allocatable, after.status.allocatable),
        (Event.NODE_LABELS, before.metadata.labels, after.metadata.labels),
        (Event.NODE_TAINTS, before.spec, after.spec),
        (Event.NODE_ANNOTATIONS, before.metadata.annotations, after.metadata.annotations),
        (Event.NODE_CONDITIONS, _conditions(before), _conditions(after)),
    )
    return frozenset(event for event, old, new in pairs if old != new)


def _conditions(node: Node) -> list[tuple[str, str]]:
    return [(each.type, each.status) for each in node.status.conditions or ()]
