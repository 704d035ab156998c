"""Devices that are offered several times: time-slicing and MPS. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from deviceplugin.config.model import Replication, Replications
from deviceplugin.config.model import Sharing as SharingSettings
from deviceplugin.resources.devices import SEPARATOR, Device, Resource, Sharing, by_index
from topology.model import NodeTopology

SUFFIX: Final = ".shared"
"""What `renameByDefault` adds to a resource's name."""

MPS_CLIENTS: Final = 48
MPS_CLIENTS_BEFORE_VOLTA: Final = 16
_VOLTA: Final = 7


def share(
    resources: Mapping[str, Resource],
    settings: SharingSettings,
    topology: NodeTopology,
    problems: list[str],
) -> dict[str, Resource]:
    """Return the resources with their replicas, emptied ones too; problems are added to the list.

    A rule whose devices are not on this node leaves everything as it is: one configuration may be
    for many kinds of nodes.
    """
    way, rules = (
        (Sharing.MPS, settings.mps)
        if settings.mps
        else (Sharing.TIME_SLICING, settings.time_slicing)
    )
    if rules is None:
        return dict(resources)
    left = {name: dict(resource.by_id) for name, resource in resources.items()}
    made: dict[str, list[Device]] = {}
    for rule in rules.resources:
        target = target_of(rule, rules)
        for device in _pick(rule, left.get(rule.name, {})):
            problem = _why_not(way, device, rule, topology)
            del left[rule.name][device.id]
            if problem:
                problems.append(f"{rule.name}: {device.id}: {problem}")
                continue
            made.setdefault(target, []).extend(_copies(device, rule.replicas))
    fail = rules.fail_requests_greater_than_one
    shared: dict[str, Resource] = {}
    for name in {**left, **made}:
        devices = [*left.get(name, {}).values(), *made.get(name, [])]
        is_shared = name in made
        shared[name] = Resource(
            name=name,
            devices=tuple(sorted(devices, key=by_index)),
            sharing=way if is_shared else Sharing.NONE,
            one_each=is_shared and (way is Sharing.MPS if fail is None else fail),
            distinct=is_shared and rules.distinct_gpus,
        )
    return shared


def target_of(rule: Replication, rules: Replications) -> str:
    """Return the resource that a rule's replicas go to."""
    if rule.rename is not None:
        return rule.rename
    return rule.name + SUFFIX if rules.rename_by_default else rule.name


def _pick(rule: Replication, devices: Mapping[str, Device]) -> list[Device]:
    """Return the devices that a rule means, those of an earlier rule left out."""
    free = sorted(devices.values(), key=by_index)
    if rule.devices == "all":
        return free
    if isinstance(rule.devices, int):
        return free[: rule.devices]
    return [
        device for device in free if {device.name, device.uuid, device.alias} & set(rule.devices)
    ]


def _copies(device: Device, count: int) -> list[Device]:
    return [
        msgspec.structs.replace(
            device, id=f"{device.uuid}{SEPARATOR}{number}", replica=number, replicas=count
        )
        for number in range(count)
    ]


def _why_not(way: Sharing, device: Device, rule: Replication, topology: NodeTopology) -> str:
    """Return why a device cannot be shared so, "" if it can."""
    if way is not Sharing.MPS:
        return ""
    if device.uuid != device.gpu:
        return "MPS does not share MIG instances"
    compute = topology.gpus[device.position].compute
    most = mps_clients(compute)
    if rule.replicas > most:
        return f"{rule.replicas} replicas; MPS has {most} clients on compute capability {compute}"
    return ""


def mps_clients(compute: str) -> int:
    """Return how many clients MPS serves on a GPU of this compute capability.

    >>> mps_clients("7.0"), mps_clients("6.1")
    (48, 16)
    """
    major = compute.split(".", 1)[0]
    newer = not major.isdecimal() or int(major) >= _VOLTA
    return MPS_CLIENTS if newer else MPS_CLIENTS_BEFORE_VOLTA
