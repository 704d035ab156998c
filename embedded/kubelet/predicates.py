"""Does the pod fit by number? Kubelet asks this after devices were allocated. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from embedded.kubelet.errors import AdmissionError
from embedded.kubelet.requests import Amounts, pod_requests
from runtime.objects import Pod


def check_fit(
    pod: Pod,
    others: Iterable[Pod],
    allocatable: Mapping[str, int],
    in_use: Mapping[str, int],
    *,
    holds_devices: bool,
) -> None:
    """Refuse a pod that the node's allocatable cannot hold beside the other active pods.

    `allocatable` is what node.status last said (cpu in thousandths, memory in bytes). Where
    `holds_devices`, it counts at least as many devices as are `in_use`. An extended resource that
    the node does not have is not looked at. Raises AdmissionError with reason ``OutOf<resource>``.
    """
    room = dict(allocatable)
    if holds_devices:
        for resource, count in in_use.items():
            room[resource] = max(room.get(resource, 0), count)
    used: Amounts = {"pods": 0}
    for other in others:
        used["pods"] += 1
        for name, amount in pod_requests(other).items():
            used[name] = used.get(name, 0) + amount
    wanted = {"pods": 1, **pod_requests(pod)}
    for name, amount in wanted.items():
        if name not in room or not amount:
            continue
        if used.get(name, 0) + amount > room[name]:
            raise AdmissionError(
                f"OutOf{name}",
                f"Node didn't have enough resource: {name}, requested: {amount},"
                f" used: {used.get(name, 0)}, capacity: {room[name]}",
            )
