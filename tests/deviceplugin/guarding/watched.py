"""A machine behind pynvml, and a monitor that watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from deviceplugin.discovery.sysfs import read_gpus
from deviceplugin.discovery.topology import discover
from deviceplugin.guarding.monitor import Monitor
from deviceplugin.guarding.pulse import Pulse
from deviceplugin.guarding.recent import Recent
from deviceplugin.health.xids import Response
from deviceplugin.metrics import Metrics
from deviceplugin.nvml.library import open_nvml
from deviceplugin.resources.inventory import Board, Inventory
from mock_nvml import MockNvml, write_sysfs
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.model import NodeTopology


class World:
    """A machine behind pynvml, and a monitor that watches it."""

    def __init__(self, folder: Path, name: str = "dgx1-v100") -> None:
        machine = load_machine(name)
        self.mock = MockNvml(machine, seed="n1")
        write_sysfs(machine, folder, seed="n1")
        self.board = Board()
        self.metrics = Metrics()
        self.posted: list[Inventory] = []
        self.board.listen(self.posted.append)
        self.stopping = threading.Event()
        self.pulse = Pulse()
        self.recent = Recent()
        self.warmed: list[NodeTopology] = []
        self.monitor = Monitor(
            open_nvml=open_nvml,
            discover=lambda nvml: discover(nvml, folder),
            board=self.board,
            metrics=self.metrics,
            stopping=self.stopping,
            hold_seconds=0.3,
            probe_seconds=0.05,
            reinit_seconds=0.2,
            plugged=lambda: read_gpus(folder),
            pulse=self.pulse,
            recent=self.recent,
            xid_responses={13: Response.UNHEALTHY, 63: Response.DEGRADE},
            warm=self.warmed.append,
        )
        self._thread = threading.Thread(target=self.monitor.run)

    def start(self) -> None:
        """Watch, and wait for the first discovery."""
        self._thread.start()
        wait_until(lambda: self.board.read().topology.gpus, what="the first discovery")

    def run(self) -> None:
        """Watch."""
        self._thread.start()

    def stop(self) -> None:
        """End everything."""
        self.stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def unhealthy(self) -> dict[int, str]:
        """Return the failed GPUs by index."""
        inventory = self.board.read()
        return {
            gpu.index: inventory.unhealthy[gpu.uuid]
            for gpu in inventory.topology.gpus
            if gpu.uuid in inventory.unhealthy
        }

    def events(self, kind: str, response: str) -> float:
        """Return how many such events were counted."""
        labels = {"kind": kind, "response": response}
        name = "gputopo_plugin_health_events_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def errors(self, stage: str) -> float:
        """Return how many NVML errors were counted."""
        name = "gputopo_plugin_nvml_errors_total"
        return self.metrics.registry.get_sample_value(name, {"stage": stage}) or 0


def sees(world: World, unhealthy: set[int]) -> Callable[[], bool]:
    """Return whether exactly these GPUs are unhealthy."""
    return lambda: world.unhealthy().keys() == unhealthy


def reports(world: World, index: int) -> Callable[[], bool]:
    """Report an XID again and again: NVML does not replay what nobody was registered for."""

    def reported() -> bool:
        world.mock.inject("xid", gpu=index, xid=48)
        return index in world.unhealthy()

    return reported
