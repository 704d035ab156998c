"""Divides the node's GPUs among resources, as the configuration says. Pure.

Which GPUs at all, then what becomes of those in MIG mode, then names by patterns. What is shared
comes after, in `deviceplugin.resources.replicas`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from deviceplugin.config.model import Config, MigStrategy, Rule, Selection
from deviceplugin.config.names import DOMAIN, matches, normalise_mig_name
from deviceplugin.resources.devices import CORDONED, Device, Resource, Sharing, by_index
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.mig import check_single, legacy_uuid, offered_alone
from deviceplugin.resources.replicas import share
from topology.model import Gpu


class Division(msgspec.Struct, frozen=True):
    """What the node offers.

    `resources` are by name. `withheld` tells of each GPU that is not offered whole under the main
    resource why that is so. `problems` are lines for the log.
    """

    resources: dict[str, Resource]
    withheld: dict[str, str] = {}
    problems: tuple[str, ...] = ()


def divide(config: Config, inventory: Inventory, main: str) -> Division:
    """Return the resources; the one called `main` is always there, perhaps without devices."""
    problems: list[str] = []
    selected = [gpu for gpu in inventory.topology.gpus if is_selected(gpu, config.gpus)]
    offered = _name_devices(config, inventory, selected, main, problems)
    resources = {
        name: Resource(name, tuple(sorted(devices, key=by_index)))
        for name, devices in offered.items()
    }
    resources = share(resources, config.sharing, inventory.topology, problems)
    if inventory.cordoned:
        resources = {name: _cordon(one, inventory) for name, one in resources.items()}
    whole = {
        device.gpu
        for device in resources[main].devices
        if device.id == device.gpu and resources[main].whole
    }
    return Division(
        resources={
            name: resource
            for name, resource in sorted(resources.items())
            if resource.devices or name == main
        },
        withheld={
            gpu.uuid: _why_withheld(gpu, config, inventory, resources)
            for gpu in inventory.topology.gpus
            if gpu.uuid not in whole or gpu.uuid in inventory.cordoned
        },
        problems=tuple(problems),
    )


def _cordon(resource: Resource, inventory: Inventory) -> Resource:
    """Close the devices of cordoned GPUs that are free.

    One that a pod holds stays open: kubelet would show its pod as one on a sick device.
    """
    held = inventory.cordoned
    return msgspec.structs.replace(
        resource,
        devices=tuple(
            msgspec.structs.replace(device, problem=CORDONED)
            if device.gpu in held and not device.problem and device.id not in held[device.gpu]
            else device
            for device in resource.devices
        ),
    )


def is_selected(gpu: Gpu, selection: Selection) -> bool:
    """Return whether a GPU is offered at all."""
    included = selection.include is None or any(_names(word, gpu) for word in selection.include)
    return included and not any(_names(word, gpu) for word in selection.exclude)


def _names(word: str, gpu: Gpu) -> bool:
    """Return whether a word of the configuration means this GPU."""
    if word.isdecimal():
        return int(word) == gpu.index
    if word.startswith("GPU-") and "*" not in word:
        return word == gpu.uuid
    if ":" in word and "*" not in word:
        return gpu.pci.removeprefix("0000:") == word.lower().removeprefix("0000:")
    return matches(word, gpu.model)


def _name_devices(
    config: Config,
    inventory: Inventory,
    gpus: Iterable[Gpu],
    main: str,
    problems: list[str],
) -> dict[str, list[Device]]:
    selected = tuple(gpus)
    strategy = config.flags.mig_strategy
    cut = {} if strategy is MigStrategy.NONE else inventory.mig
    offered: dict[str, list[Device]] = {main: []}
    if strategy is MigStrategy.SINGLE:
        problem = check_single([gpu.uuid for gpu in selected], cut)
        if problem:
            problems.append(problem)
            return offered
    positions = inventory.topology.position_of()
    for gpu in selected:
        position = positions[gpu.uuid]
        if gpu.uuid not in cut:
            name = _first_match(config.resources.gpus, gpu.model) or main
            offered.setdefault(name, []).append(_whole_gpu(gpu, position, inventory))
            continue
        if not cut[gpu.uuid]:
            problems.append(f"{gpu.uuid} is in MIG mode and has no instance")
        for one in cut[gpu.uuid]:
            if strategy is MigStrategy.MIXED and not offered_alone(one):
                problems.append(f"{one.uuid}: {one.profile} shares its GPU instance: not offered")
                continue
            default = (
                main
                if strategy is MigStrategy.SINGLE
                else f"{DOMAIN}/{normalise_mig_name(one.profile)}"
            )
            name = _first_match(config.resources.mig, one.profile) or default
            offered.setdefault(name, []).append(
                Device(
                    id=one.uuid,
                    uuid=one.uuid,
                    gpu=gpu.uuid,
                    position=position,
                    index=(gpu.index, one.index),
                    numa_node=gpu.numa_node,
                    alias=legacy_uuid(gpu.uuid, one),
                    problem=inventory.unhealthy.get(one.uuid)
                    or inventory.unhealthy.get(gpu.uuid, ""),
                )
            )
    return offered


def _whole_gpu(gpu: Gpu, position: int, inventory: Inventory) -> Device:
    return Device(
        id=gpu.uuid,
        uuid=gpu.uuid,
        gpu=gpu.uuid,
        position=position,
        index=(gpu.index,),
        numa_node=gpu.numa_node,
        problem=inventory.unhealthy.get(gpu.uuid, ""),
    )


def _first_match(rules: Iterable[Rule], text: str) -> str | None:
    return next((rule.name for rule in rules if matches(rule.pattern, text)), None)


def _why_withheld(
    gpu: Gpu, config: Config, inventory: Inventory, resources: dict[str, Resource]
) -> str:
    if gpu.uuid in inventory.cordoned:
        return CORDONED
    if not is_selected(gpu, config.gpus):
        return "excluded by the configuration"
    names = sorted(
        resource.name
        for resource in resources.values()
        if any(device.gpu == gpu.uuid for device in resource.devices)
    )
    if not names:
        return "in MIG mode, not offered" if gpu.uuid in inventory.mig else "not offered"
    shared = any(resources[name].sharing is not Sharing.NONE for name in names)
    return ("shared as " if shared else "offered as ") + ", ".join(names)
