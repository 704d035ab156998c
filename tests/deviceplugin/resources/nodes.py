"""Nodes in MIG mode, and configurations, for tests of what is offered."""

from __future__ import annotations

from collections.abc import Mapping

from deviceplugin.config.loading import read_config
from deviceplugin.config.model import Config
from deviceplugin.nvml.interface import MigDevice
from deviceplugin.resources.devices import Resource
from deviceplugin.resources.facts import NodeFacts
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import MAIN, Stock, take_stock
from tests.deviceplugin.nodes import machine

READY = NodeFacts(mps_ready=frozenset([MAIN]))
"""A host on which MPS runs."""


def config_of(text: str = "") -> Config:
    """Read a configuration."""
    return read_config(text.encode(), "config.yaml")


def instance(gpu: int, index: int, profile: str = "1g.5gb", **changes: object) -> MigDevice:
    """Return a MIG instance ``m<gpu>-<index>`` of a profile."""
    slices = int(profile.split("g.", maxsplit=1)[0][-1])
    told: dict[str, object] = {
        "uuid": f"m{gpu}-{index}",
        "index": index,
        "gpu_instance": index + 1,
        "compute_instance": 0,
        "profile": profile,
        "gpu_slices": slices,
        "compute_slices": 1 if "c." in profile else slices,
        "gpu_minor": 10 * (gpu + 1) + index,
        "compute_minor": 100 * (gpu + 1) + index,
    }
    return MigDevice(**(told | changes))  # type: ignore[arg-type]  # a test's own words


def cut(gpu: int, *profiles: str) -> dict[str, tuple[MigDevice, ...]]:
    """Return the instances of one GPU, as an inventory has them."""
    return {
        f"g{gpu}": tuple(instance(gpu, index, profile) for index, profile in enumerate(profiles))
    }


def stock(
    text: str = "",
    count: int = 2,
    mig: Mapping[str, tuple[MigDevice, ...]] | None = None,
    unhealthy: Mapping[str, str] | None = None,
) -> Stock:
    """Return what a node of some GPUs offers under a configuration."""
    inventory = Inventory(machine(count), dict(unhealthy or {}), dict(mig or {}))
    return take_stock(inventory, config_of(text), READY)


def ids(resource: Resource) -> list[str]:
    """Return the ids of a resource's devices."""
    return [device.id for device in resource.devices]


def offers(one: Stock) -> dict[str, list[str]]:
    """Return what is offered: names without the usual domain, and ids."""
    return {
        name.removeprefix("nvidia.com/"): ids(resource)
        for name, resource in one.division.resources.items()
    }


__all__ = ["MAIN", "config_of", "cut", "ids", "instance", "offers", "stock"]
