"""All that a plugin knows of its node, as one JSON document for people who look."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deviceplugin.guarding.recent import Report
from deviceplugin.resources.inventory import Inventory
from topology.errors import WireError
from topology.wire import DeviceCondition, encode_topology


class Part(msgspec.Struct, frozen=True):
    """A MIG device: ``gpu:index`` as its name, and its profile."""

    uuid: str
    name: str
    profile: str


class NodeReport(msgspec.Struct, frozen=True):
    """The answer of ``/node``.

    `topology` is the annotation's JSON, null before the first discovery. `holders` maps a device's
    id as kubelet knows it to the pods that have it. `reports` are the last things that GPUs told,
    the oldest first. `problem` is what keeps the plugin from being ready.
    """

    node: str
    driver: str
    cuda: str
    topology: msgspec.Raw
    parts: tuple[Part, ...]
    conditions: dict[str, DeviceCondition]
    holders: dict[str, tuple[str, ...]]
    reports: tuple[Report, ...]
    problem: str


def compose_report(
    node: str,
    inventory: Inventory,
    *,
    conditions: Mapping[str, DeviceCondition],
    holders: Mapping[str, tuple[str, ...]],
    reports: tuple[Report, ...],
    problem: str | None,
) -> NodeReport:
    """Return the report. A topology that is too large for the annotation is left out."""
    try:
        text = encode_topology(inventory.topology) if inventory.topology.gpus else "null"
    except WireError:
        text = "null"
    return NodeReport(
        node=node,
        driver=inventory.driver.version,
        cuda=inventory.driver.cuda,
        topology=msgspec.Raw(text.encode()),
        parts=tuple(
            Part(one.uuid, f"{gpu.index}:{one.index}", one.profile)
            for gpu in inventory.topology.gpus
            for one in inventory.mig.get(gpu.uuid, ())
        ),
        conditions=dict(conditions),
        holders=dict(holders),
        reports=reports,
        problem=problem or "",
    )
