"""kube-scheduler's own filters, as far as the pods of a demo use them. Pure.

The texts are kube-scheduler's, so that `kubectl describe` reads as people know it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from embedded.kube_scheduler.affinity import NO_AFFINITY, NodeAffinity
from embedded.kube_scheduler.amounts import PODS, Amounts
from embedded.kube_scheduler.cache import NodeInfo
from embedded.kube_scheduler.events import Plugin
from runtime.objects import Node, Pod, Taint, Toleration

_REFUSING_EFFECTS = ("NoSchedule", "NoExecute")


class Refusal(msgspec.Struct, frozen=True):
    """Why a node will not do, and who says so. `resolvable` tells that evictions might help."""

    text: str
    plugin: Plugin
    resolvable: bool = False


def refuse_node(
    info: NodeInfo, pod: Pod, request: Amounts, affinity: NodeAffinity = NO_AFFINITY
) -> Refusal | None:
    """Return why the node cannot take the pod, None if it can."""
    node = info.node
    if node is None:
        return Refusal("node(s) were not found", Plugin.NODE_READY)
    if node.spec.unschedulable:
        return Refusal("node(s) were unschedulable", Plugin.NODE_UNSCHEDULABLE)
    if not is_ready(node):
        return Refusal("node(s) were not ready", Plugin.NODE_READY)
    for taint in node.spec.taints or ():
        if taint.effect in _REFUSING_EFFECTS and not tolerates(pod, taint):
            text = f"node(s) had untolerated taint {{{taint.key}: {taint.value or ''}}}"
            return Refusal(text, Plugin.TAINT_TOLERATION)
    labels = node.metadata.labels or {}
    selector = pod.spec.node_selector or {}
    selected = all(labels.get(key) == value for key, value in selector.items())
    if not selected or not affinity.allows(node):
        text = "node(s) didn't match Pod's node affinity/selector"
        return Refusal(text, Plugin.NODE_AFFINITY)
    for name, amount in sorted(request.items()):
        if amount > 0 and info.left(name) < amount:
            text = "Too many pods" if name == PODS else f"Insufficient {name}"
            return Refusal(text, Plugin.NODE_RESOURCES_FIT, resolvable=True)
    return None


def is_ready(node: Node) -> bool:
    """Tell whether the node's Ready condition is True."""
    return any(
        each.type == "Ready" and each.status == "True" for each in node.status.conditions or ()
    )


def tolerates(pod: Pod, taint: Taint) -> bool:
    """Tell whether one of the pod's tolerations covers the taint."""
    return any(_covers(toleration, taint) for toleration in pod.spec.tolerations or ())


def _covers(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", None, taint.key)
    return toleration.key == taint.key and (toleration.value or "") == (taint.value or "")


def describe_refusal(total: int, texts: Iterable[str]) -> str:
    """Return the text of a PodScheduled condition, in kube-scheduler's words.

    >>> describe_refusal(3, ["Insufficient cpu", "Too many pods", "Too many pods"])
    '0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.'
    """
    counted = sorted(f"{count} {text}" for text, count in Counter(texts).items())
    return f"0/{total} nodes are available: {', '.join(counted) or 'none exists'}."
