"""The Binding subresource, as BindingREST.Create does it in a real API server.

One write sets ``spec.nodeName``, copies the Binding's annotations and labels onto the pod (the
same key is overwritten, others stay) and sets the condition PodScheduled. Nobody can see the pod
bound without the annotation. Verified against 1.36.3; the texts are the server's.
"""

from __future__ import annotations

from typing import Any

from embedded.apiserver.errors import bad_request, conflict, invalid

Object = dict[str, Any]


def check_binding(binding: Object, pod_name: str) -> str:
    """Return the node that the Binding names. Raises ApiRefusal for one that cannot be meant."""
    meta = binding.get("metadata") or {}
    if meta.get("name", "") not in {"", pod_name}:
        raise bad_request("name in URL does not match name in Binding object")
    target = binding.get("target") or {}
    if target.get("kind", "") not in {"", "Node"}:
        raise invalid(
            "Binding", pod_name, f'target.kind: Unsupported value: "{target["kind"]}": "Node"'
        )
    node = target.get("name")
    if not isinstance(node, str) or not node:
        raise invalid("Binding", pod_name, "target.name: Required value")
    return node


def bind_pod(pod: Object, binding: Object, now: str) -> Object:
    """Return the bound pod. Raises ApiRefusal 409 when it cannot be bound any more, or not yet."""
    name = pod["metadata"]["name"]
    node = check_binding(binding, name)
    meta = binding.get("metadata") or {}
    check_preconditions(pod, meta, "pods/binding")
    refusal = _refusal(pod, name)
    if refusal:
        raise conflict("pods/binding", name, refusal)
    status = pod.get("status") or {}
    return {
        **pod,
        "metadata": {
            **pod["metadata"],
            **_merged(pod["metadata"], meta, "annotations"),
            **_merged(pod["metadata"], meta, "labels"),
        },
        "spec": {**pod["spec"], "nodeName": node},
        "status": {**status, "conditions": _scheduled(status.get("conditions") or [], now)},
    }


def check_preconditions(obj: Object, wanted: Object, what: str) -> None:
    """Compare uid and resourceVersion, where given. Raises ApiRefusal 409 for a difference."""
    meta = obj["metadata"]
    for key, shown in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        asked = wanted.get(key)
        if asked and asked != meta.get(key):
            raise conflict(
                what,
                meta["name"],
                f"Precondition failed: {shown} in precondition: {asked}, "
                f"{shown} in object meta: {meta.get(key)}",
            )


def _refusal(pod: Object, name: str) -> str | None:
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is being deleted, cannot be assigned to a host"
    bound_to = pod["spec"].get("nodeName")
    if bound_to:
        return f'pod {name} is already assigned to node "{bound_to}"'
    if pod["spec"].get("schedulingGates"):
        return f"pod {name} has non-empty .spec.schedulingGates"
    return None


def _merged(onto: Object, given: Object, key: str) -> Object:
    added = given.get(key)
    return {key: {**(onto.get(key) or {}), **added}} if added else {}


def _scheduled(conditions: list[Object], now: str) -> list[Object]:
    others = [kept for kept in conditions if kept.get("type") != "PodScheduled"]
    return [*others, {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}]
