"""The Priority admission plugin: a pod's class becomes the number that schedulers compare. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from embedded.apiserver.errors import forbidden

Object = dict[str, Any]

BUILT_IN: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Classes that every cluster has."""

_PREEMPTS: Final = "PreemptLowerPriority"


def admit_priority(pod: Object, find: Callable[[str], Object | None]) -> Object:
    """Return the pod with `priority` and `preemptionPolicy` of its class.

    `find` looks a PriorityClass up. Raises ApiRefusal 403 for a class that does not exist, and for
    a number that the author wrote himself and that is not his class's.
    """
    spec = pod["spec"]
    name = spec.get("priorityClassName") or ""
    priority, policy = _meaning(pod["metadata"]["name"], name, find)
    for key, computed in (("priority", priority), ("preemptionPolicy", policy)):
        if spec.get(key) not in {None, computed}:
            raise forbidden(
                "pods",
                pod["metadata"]["name"],
                f"the value of {key} ({spec[key]}) must not be provided in pod spec; priority "
                f"admission controller computed {computed} from the given PriorityClass name",
            )
    return {**pod, "spec": {**spec, "priority": priority, "preemptionPolicy": policy}}


def _meaning(pod: str, name: str, find: Callable[[str], Object | None]) -> tuple[int, str]:
    if not name:
        return 0, _PREEMPTS
    if name in BUILT_IN:
        return BUILT_IN[name], _PREEMPTS
    found = find(name)
    if found is None:
        raise forbidden("pods", pod, f"no PriorityClass with name {name} was found")
    return int(found.get("value", 0)), str(found.get("preemptionPolicy") or _PREEMPTS)
