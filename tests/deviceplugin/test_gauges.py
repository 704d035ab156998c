"""Series that come and go with their GPUs and pods."""

from __future__ import annotations

import pytest

from deviceplugin.metrics import Metrics
from deviceplugin.nvml.interface import MigDevice
from deviceplugin.resources.inventory import Inventory
from tests.deviceplugin.nodes import holdings, machine


class Shown:
    """Metrics and how to read them."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def value(self, name: str, **labels: str) -> float | None:
        """Return a series' value, None if there is none."""
        return self.metrics.registry.get_sample_value(f"gputopo_plugin_device_{name}", labels)


@pytest.fixture
def shown() -> Shown:
    """Return metrics without any GPU."""
    return Shown()


def test_each_gpu_has_its_series(shown: Shown) -> None:
    """Healthy, degraded and cordoned as 0 or 1, and what it is."""
    inventory = Inventory(
        machine(3), {"g0": "lost"}, degraded={"g1": "hot"}, cordoned={"g2": frozenset()}
    )
    shown.metrics.devices.show(inventory)
    for name, wanted in (
        ("healthy", [0, 1, 1]),
        ("degraded", [0, 1, 0]),
        ("cordoned", [0, 0, 1]),
    ):
        assert [shown.value(name, uuid=f"g{at}", index=str(at)) for at in range(3)] == wanted
    info = {"uuid": "g0", "index": "0", "model": "V100", "pci": "0000:10:00.0", "numa_node": "0"}
    assert shown.value("info", **info) == 1


def test_a_gpu_that_is_gone_loses_its_series(shown: Shown) -> None:
    """One that stays keeps its own."""
    shown.metrics.devices.show(Inventory(machine(2)))
    shown.metrics.devices.show(Inventory(machine(1), {"g0": "lost"}))
    assert shown.value("healthy", uuid="g0", index="0") == 0
    assert shown.value("healthy", uuid="g1", index="1") is None


def test_a_mig_device_falls_with_its_gpu(shown: Shown) -> None:
    """Or by itself."""
    parts = tuple(MigDevice(f"m{at}", at, at, 0, "1g.5gb") for at in range(2))
    name = {"uuid": "m1", "index": "0:1", "profile": "1g.5gb"}
    for unhealthy, healthy in (({}, 1), ({"m1": "XID 94"}, 0), ({"g0": "lost"}, 0)):
        shown.metrics.devices.show(Inventory(machine(1), unhealthy, {"g0": parts}))
        assert shown.value("mig_healthy", **name) == healthy


def test_pods_are_shown_with_their_gpus(shown: Shown) -> None:
    """By namespace and name; a pod that has ended vanishes, what is no GPU of ours is left out."""
    inventory = Inventory(machine(4))
    held = holdings(a={"c": ("g1", "g2")}, b={"c": ("fpga-7",)})
    shown.metrics.devices.show_holders(held, inventory)
    name = {"uuid": "g2", "index": "2", "namespace": "d", "pod": "a"}
    assert shown.value("allocated", **name) == 1
    shown.metrics.devices.show_holders(holdings(), inventory)
    assert shown.value("allocated", **name) is None
