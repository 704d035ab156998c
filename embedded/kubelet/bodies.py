"""What kubelet writes to the API server, as merge patches. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from embedded.kubelet.containers import ContainerView
from embedded.kubelet.inventory import Counts
from embedded.kubelet.poddevices import Grant
from embedded.kubelet.pods import PodRecord
from embedded.kubelet.requests import init_containers

Body = dict[str, Any]

HOSTNAME_LABEL = "kubernetes.io/hostname"

HealthOf = Callable[[str, str], bool | None]
"""The last reported health of (resource, device), None if it was never reported."""


def rfc3339(seconds: float) -> str:
    """Write seconds since the epoch as the API does.

    >>> rfc3339(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_body(name: str, labels: Mapping[str, str], status: Body) -> Body:
    """Describe the node for its creation."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**labels, HOSTNAME_LABEL: name}},
        "status": status,
    }


def node_status(machine: Mapping[str, str], counts: Counts, since: float) -> Body:
    """Describe capacity and allocatable: the machine's own, and the devices'.

    A resource whose plugin is long gone stays, with 0.
    """
    gone = dict.fromkeys(counts.removed - counts.capacity.keys(), "0")

    def numbers(devices: Mapping[str, int]) -> dict[str, str]:
        zero = {**gone, **dict.fromkeys(counts.capacity, "0")}
        return {**machine, **zero, **{name: str(count) for name, count in devices.items()}}

    return {
        "capacity": numbers(counts.capacity),
        "allocatable": numbers(counts.allocatable),
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastTransitionTime": rfc3339(since),
            }
        ],
    }


def pod_status(
    record: PodRecord,
    view_of: Callable[[str], ContainerView | None],
    grants: Iterable[Grant],
    health: HealthOf,
    wall: Callable[[float], float],
) -> Body:
    """Describe a pod's status. `wall` turns the runtime's clock into seconds since the epoch."""
    views = [view_of(each.name) for each in record.pod.spec.containers]
    # A survivor of an earlier kubelet process began when its container did.
    begun = record.started or min((wall(v.started) for v in views if v is not None), default=0.0)
    started = rfc3339(begun)
    status: Body = {"phase": record.phase, "startTime": started}
    if record.reason:
        status |= {"reason": record.reason, "message": record.message}
        return status
    held = tuple(grants)
    pod = record.pod

    def describe(names: Iterable[str]) -> list[Body]:
        return [
            {**_container_status(name, view_of(name), wall), **_devices(name, held, health)}
            for name in names
        ]

    ready = "True" if record.phase == "Running" else "False"
    status["conditions"] = [
        {"type": kind, "status": value, "lastTransitionTime": started}
        for kind, value in (
            ("PodScheduled", "True"),
            ("Initialized", "True"),
            ("ContainersReady", ready),
            ("Ready", ready),
        )
    ]
    status["containerStatuses"] = describe(each.name for each in pod.spec.containers)
    if init_containers(pod):
        status["initContainerStatuses"] = describe(each.name for each in init_containers(pod))
    return status


def _container_status(
    name: str, view: ContainerView | None, wall: Callable[[float], float]
) -> Body:
    if view is None:
        waiting = {"reason": "ContainerCreating"}
        return {"name": name, "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    begun = rfc3339(wall(view.started))
    state: Body = {"running": {"startedAt": begun}}
    if not view.running:
        ended = rfc3339(wall(view.ended if view.ended is not None else view.started))
        state = {
            "terminated": {
                "exitCode": 0 if view.by_itself else 137,
                "reason": "Completed" if view.by_itself else "Error",
                "startedAt": begun,
                "finishedAt": ended,
            }
        }
    return {
        "name": name,
        "ready": view.running,
        "restartCount": view.attempt,
        "containerID": f"embedded://{view.uid}/{name}/{view.attempt}",
        "state": state,
    }


def _devices(name: str, grants: tuple[Grant, ...], health: HealthOf) -> Body:
    told = [
        {
            "name": grant.resource,
            "resources": [
                {
                    "resourceID": device.id,
                    "health": "Unhealthy"
                    if health(grant.resource, device.id) is False
                    else "Healthy",
                }
                for device in grant.devices
            ],
        }
        for grant in grants
        if grant.container == name
    ]
    return {"allocatedResourcesStatus": told} if told else {}
