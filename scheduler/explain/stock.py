"""What kube-scheduler's own filters would say to a pod: labels, taints, cordons.

The candidates that kube-scheduler sends have passed these; a dry-run's have not. Volumes, ports and
the affinity between pods are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import intern
from typing import Final

import msgspec

from runtime.objects import Node, Taint, Toleration
from scheduler.explain.question import AskedPod, NodeTerm, Requirement

OTHER_NODE: Final = "pod names another node"
CORDONED: Final = "node is cordoned"
NOT_SELECTED: Final = "node does not match the pod's node selector or affinity"
TAINTED: Final = "node has a taint that the pod does not tolerate"


class Traits(msgspec.Struct, frozen=True):
    """What a node is like, beside its GPUs."""

    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class TraitBook:
    """The traits of all nodes. It is a sink of their watch."""

    def __init__(self) -> None:
        self._traits: dict[str, Traits] = {}

    def of(self, node: str) -> Traits:
        """Return a node's traits."""
        return self._traits.get(node, Traits())

    def listed(self, objects: tuple[Node, ...]) -> None:
        """Take a complete list."""
        self._traits = {}
        for node in objects:
            self.changed(node)

    def changed(self, obj: Node) -> None:
        """Take a new or changed node."""
        # Names and values are the same on thousands of nodes: kept once.
        labels = {intern(k): intern(v) for k, v in (obj.metadata.labels or {}).items()}
        taints = tuple(
            taint for taint in obj.spec.taints or () if taint.effect in {"NoSchedule", "NoExecute"}
        )
        self._traits[obj.metadata.name] = Traits(labels, taints, bool(obj.spec.unschedulable))

    def deleted(self, obj: Node) -> None:
        """Take a node's end."""
        self._traits.pop(obj.metadata.name, None)


def objection(node: str, traits: Traits, pod: AskedPod) -> str | None:
    """Return why kube-scheduler would not take the node for the pod, None if it would."""
    spec = pod.spec
    if spec.node_name and spec.node_name != node:
        return OTHER_NODE
    labels = traits.labels
    if any(labels.get(key) != value for key, value in (spec.node_selector or {}).items()):
        return NOT_SELECTED
    affinity = spec.affinity.node_affinity if spec.affinity is not None else None
    required = affinity.required if affinity is not None else None
    if required is not None and not any(
        _meets(node, labels, term) for term in required.node_selector_terms
    ):
        return NOT_SELECTED
    tolerations = spec.tolerations or ()
    if any(not any(_tolerates(one, taint) for one in tolerations) for taint in traits.taints):
        return TAINTED
    cordon = Taint("node.kubernetes.io/unschedulable", None, "NoSchedule")
    if traits.unschedulable and not any(_tolerates(one, cordon) for one in tolerations):
        return CORDONED
    return None


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and (toleration.value or "") == (taint.value or "")


def _meets(node: str, labels: Mapping[str, str], term: NodeTerm) -> bool:
    expressions, fields = term.match_expressions or (), term.match_fields or ()
    # A term that says nothing matches nothing.
    return bool(expressions or fields) and (
        all(_fits(labels.get(one.key), one) for one in expressions)
        and all(_fits(node if one.key == "metadata.name" else None, one) for one in fields)
    )


_OPERATORS: Final[Mapping[str, Callable[[str | None, tuple[str, ...]], bool]]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: _above(value, values, 1),
    "Lt": lambda value, values: _above(value, values, -1),
}


def _fits(value: str | None, one: Requirement) -> bool:
    operator = _OPERATORS.get(one.operator)
    return operator is not None and operator(value, one.values or ())


def _above(value: str | None, values: tuple[str, ...], sign: int) -> bool:
    try:
        return sign * int(value or "") > sign * int(values[0])
    except (ValueError, IndexError):
        return False
