"""What has happened between two inventories, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from deviceplugin.resources.inventory import Inventory


class Happening(msgspec.Struct, frozen=True):
    """Something worth an event: `reason` in Kubernetes' manner, `about` the device's uuid."""

    reason: str
    message: str
    about: str = ""
    warning: bool = False


def compare(before: Inventory, after: Inventory) -> tuple[Happening, ...]:
    """Return what has happened. The first inventory is news only for what is wrong in it."""
    names = {**_names(before), **_names(after)}
    return (
        *(_gpus(before, after, names) if before.topology.gpus else ()),
        *_health(before, after, names),
        *_cordon(before, after, names),
        *(_cut(before, after, names) if before.topology.gpus else ()),
        *(_links(before, after) if before.topology.gpus else ()),
    )


def _names(inventory: Inventory) -> dict[str, str]:
    names = {gpu.uuid: f"GPU {gpu.index} ({gpu.uuid})" for gpu in inventory.topology.gpus}
    for gpu in inventory.topology.gpus:
        for one in inventory.mig.get(gpu.uuid, ()):
            names[one.uuid] = f"MIG device {gpu.index}:{one.index} {one.profile} ({one.uuid})"
    return names


def _gpus(before: Inventory, after: Inventory, names: Mapping[str, str]) -> Iterator[Happening]:
    was = before.topology.position_of().keys()
    now = after.topology.position_of().keys()
    for uuid in sorted(now - was):
        yield Happening("GpuAdded", f"{names[uuid]} is new", uuid)
    for uuid in sorted(was - now):
        yield Happening("GpuRemoved", f"{names[uuid]} is gone", uuid, warning=True)


def _health(before: Inventory, after: Inventory, names: Mapping[str, str]) -> Iterator[Happening]:
    present = _names(after).keys()
    for uuid, why in sorted(after.unhealthy.items()):
        if uuid not in before.unhealthy:
            text = f"{names.get(uuid, uuid)} gets no new pods: {why}"
            yield Happening("GpuUnhealthy", text, uuid, warning=True)
    for uuid, why in sorted(before.unhealthy.items()):
        if uuid not in after.unhealthy and uuid in present:
            yield Happening("GpuRecovered", f"{names[uuid]} is well again after: {why}", uuid)
    for uuid, why in sorted(after.degraded.items()):
        if uuid not in before.degraded and uuid not in before.unhealthy:
            text = f"{names.get(uuid, uuid)} works with a flaw: {why}"
            yield Happening("GpuDegraded", text, uuid, warning=True)
    for uuid, why in sorted(before.degraded.items()):
        gone = uuid not in after.degraded and uuid not in after.unhealthy
        if gone and uuid in present:
            yield Happening("GpuFlawGone", f"{names[uuid]} is well again after: {why}", uuid)


def _cordon(before: Inventory, after: Inventory, names: Mapping[str, str]) -> Iterator[Happening]:
    for uuid, held in sorted(after.cordoned.items()):
        if uuid not in before.cordoned:
            text = f"{names[uuid]} gets no new pods" + (", one still holds it" if held else "")
            yield Happening("GpuCordoned", text, uuid)
        if not held and before.cordoned.get(uuid):
            yield Happening("GpuDrained", f"{names[uuid]} is cordoned and with no pod", uuid)
    for uuid in sorted(before.cordoned.keys() - after.cordoned.keys()):
        yield Happening("GpuUncordoned", f"{names[uuid]} may get pods again", uuid)


def _cut(before: Inventory, after: Inventory, names: Mapping[str, str]) -> Iterator[Happening]:
    for gpu in after.topology.gpus:
        now = after.mig.get(gpu.uuid)
        if now == before.mig.get(gpu.uuid):
            continue
        if now is None:
            yield Happening("MigChanged", f"{names[gpu.uuid]} is whole, MIG is off", gpu.uuid)
        else:
            cut = ", ".join(one.profile for one in now) or "nothing yet"
            yield Happening("MigChanged", f"{names[gpu.uuid]} is cut into {cut}", gpu.uuid)


def _links(before: Inventory, after: Inventory) -> Iterator[Happening]:
    same = before.topology.position_of() == after.topology.position_of()
    if same and before.topology.nvlinks != after.topology.nvlinks:
        was, now = (sum(map(sum, one.topology.nvlinks)) // 2 for one in (before, after))
        yield Happening("LinksChanged", f"NVLinks between GPUs: {now}, before {was}")
