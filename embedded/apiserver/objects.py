"""What the server makes of an object at create, update, patch and status update. Pure.

Follows the real server's strategies for the kinds that are served: pods start Pending, a plain
update leaves the status alone and a status update leaves the spec, a pod's spec hardly changes,
and only a Binding sets a node.
"""

from __future__ import annotations

import re
from typing import Any

from embedded.apiserver.binding import check_preconditions
from embedded.apiserver.errors import bad_request, invalid
from embedded.apiserver.resources import NODES, PODS, Resource, Target

Object = dict[str, Any]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
"""Metadata that an update cannot change."""

_WITH_STATUS = {PODS.key, NODES.key}
_FREE_SPEC = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")
_POD_DEFAULTS = {
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
}
_CONTAINERS = ("containers", "initContainers")


def prepare_new(target: Target, obj: Object, *, uid: str, now: str, suffix: str) -> Object:
    """Return the object as it is to be stored. Raises ApiRefusal for what cannot be created."""
    resource = target.resource
    _check_kind(resource, obj)
    meta = {key: value for key, value in obj["metadata"].items() if value is not None}
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    _set_namespace(target, meta)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = f"{meta['generateName']}{suffix}"
    name = meta.get("name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        why = "Required value: name or generateName is required" if not name else "Invalid value"
        raise invalid(resource.kind, str(name)[:80], f"metadata.name: {why}")
    _check_texts(resource, name, meta)
    meta.update(uid=uid, creationTimestamp=now)
    made = {**obj, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    if resource is PODS:
        made["spec"] = _checked_pod_spec(name, made)
        made["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif resource.key in _WITH_STATUS:
        made["status"] = made.get("status") or {}
        made["spec"] = made.get("spec") or {}
    return made


def prepare_update(resource: Resource, old: Object, new: Object, *, status: bool) -> Object:
    """Return what `old` becomes when `new` is put there. Raises ApiRefusal 400, 409 or 422."""
    _check_kind(resource, new)
    name = old["metadata"]["name"]
    meta = {key: value for key, value in new["metadata"].items() if value is not None}
    if meta.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    if not meta.get("resourceVersion") and not resource.unconditional_update:
        raise invalid(
            resource.kind, name, "metadata.resourceVersion: must be specified for an update"
        )
    check_preconditions(old, meta, resource.plural)
    _check_texts(resource, name, meta)
    free = {key: value for key, value in meta.items() if key not in _KEPT}
    kept = {key: old["metadata"][key] for key in _KEPT if key in old["metadata"]}
    made = {
        **new,
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": {**free, **kept, "resourceVersion": old["metadata"]["resourceVersion"]},
    }
    if status:
        return {**made, **_part(old, "spec")}
    if resource.key in _WITH_STATUS:
        made.pop("status", None)
        made.update(_part(old, "status"))
    if resource is PODS:
        made["spec"] = _checked_pod_spec(name, made)
        if _fixed(made["spec"]) != _fixed(old["spec"]) or _adds_gates(made["spec"], old["spec"]):
            raise invalid(
                "Pod",
                name,
                "spec: Forbidden: pod updates may not change fields other than images, "
                "activeDeadlineSeconds, tolerations and terminationGracePeriodSeconds",
            )
    return made


def merge_patch(old: Any, patch: Any) -> Any:
    """Apply an RFC 7386 merge patch; nothing of `old` is changed.

    >>> merge_patch({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _part(obj: Object, key: str) -> Object:
    return {key: obj[key]} if key in obj else {}


def _check_kind(resource: Resource, obj: Object) -> None:
    if not isinstance(obj.get("metadata"), dict):
        raise bad_request(f"{resource.kind} in the request body has no metadata")
    for key, wanted in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        if obj.get(key) not in {None, wanted}:
            raise bad_request(
                f"the {key} in the data ({str(obj[key])[:80]}) does not match "
                f"the expected one ({wanted})"
            )
    for key in ("spec", "status"):
        if not isinstance(obj.get(key), dict | None):
            raise bad_request(f"{resource.kind}.{key} is not an object")


def _set_namespace(target: Target, meta: Object) -> None:
    given = meta.get("namespace", "")
    if not target.resource.namespaced:
        meta.pop("namespace", None)
        return
    if given not in {"", target.namespace}:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    meta["namespace"] = target.namespace


def _check_texts(resource: Resource, name: str, meta: Object) -> None:
    for key in ("annotations", "labels"):
        texts = meta.get(key) or {}
        if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
            raise bad_request(f"{resource.kind} {name}: metadata.{key} maps texts to texts")
        # A real server counts keys and values together.
        if key == "annotations" and sum(len(k) + len(t) for k, t in texts.items()) > 256 << 10:
            raise invalid(
                resource.kind, name, "metadata.annotations: Too long: may not be more than 262144"
            )


def _checked_pod_spec(name: str, pod: Object) -> Object:
    """Check a pod's spec and fill in the defaults that schedulers and kubelets read."""
    spec = {**_POD_DEFAULTS, **(pod.get("spec") or {})}
    for key in _CONTAINERS:
        containers = spec.get(key)
        if containers is None and key != "containers":
            continue
        if not isinstance(containers, list) or (not containers and key == "containers"):
            raise invalid("Pod", name, f"spec.{key}: Required value")
        for number, container in enumerate(containers):
            if not isinstance(container, dict) or not container.get("name"):
                raise invalid("Pod", name, f"spec.{key}[{number}].name: Required value")
        spec[key] = [_with_requests(container) for container in containers]
    return spec


def _with_requests(container: Object) -> Object:
    # The API server's own rule: a limit without a request is the request.
    resources = container.get("resources") or {}
    limits = resources.get("limits") if isinstance(resources, dict) else None
    if not limits:
        return container
    requests = {**limits, **(resources.get("requests") or {})}
    return {**container, "resources": {**resources, "requests": requests}}


def _fixed(spec: Object) -> Object:
    """Return the part of a pod's spec that cannot change."""
    fixed = {key: value for key, value in spec.items() if key not in _FREE_SPEC}
    for key in _CONTAINERS:
        fixed[key] = [
            {part: value for part, value in container.items() if part != "image"}
            for container in fixed.get(key) or []
        ]
    fixed.pop("schedulingGates", None)
    return fixed


def _adds_gates(new: Object, old: Object) -> bool:
    had = old.get("schedulingGates") or []
    return any(gate not in had for gate in new.get("schedulingGates") or [])
