"""The bodies of the contract's pods and Bindings, as a real API server takes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.contract.world import NAMESPACE, NODE, PodPlan
from topology.wire import ASSIGNMENT_KEY, STRICT_KEY, Assignment, encode_assignment

Body = dict[str, Any]

IMAGE = "contract.example/pause:1"
"""Never pulled: both container runtimes have whatever they are asked for."""


def pod_path(name: str) -> str:
    """Return a pod's path at the API server."""
    return f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"


def pod_body(pod: PodPlan) -> Body:
    """Return a pod, bound to no node."""
    initial = (*pod.inits, *pod.sidecars, *pod.late)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": NAMESPACE,
            "annotations": {STRICT_KEY: "true"} if pod.strict else {},
        },
        "spec": {
            # Nobody's: only the cases bind.
            "schedulerName": "contract",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "initContainers": [
                # A runtime that starts nothing ends `true` at once.
                *({**_container(pod, name), "command": ["true"]} for name in pod.inits),
                *({**_container(pod, name), "restartPolicy": "Always"} for name in pod.sidecars),
                *({**_container(pod, name), "command": ["true"]} for name in pod.late),
            ],
            "containers": [_container(pod, name) for name in pod.counts if name not in initial],
        },
    }


def binding_body(pod: PodPlan, uid: str, uuids: Sequence[str]) -> Body:
    """Return the Binding of a created pod, with its set; `uuids` are the node's GPUs in order."""
    value = pod.raw
    if pod.sets is not None:
        sets = {name: tuple(uuids[gpu] for gpu in gpus) for name, gpus in pod.sets.items()}
        value = encode_assignment(Assignment(sets))
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": pod.name,
            "namespace": NAMESPACE,
            "uid": uid,
            "annotations": {} if value is None else {ASSIGNMENT_KEY: value},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }


def _container(pod: PodPlan, name: str) -> Body:
    count = pod.counts[name]
    limits = {pod.resource: str(count)} if count else {}
    return {"name": name, "image": IMAGE, "resources": {"limits": limits}}
