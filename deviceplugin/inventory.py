"""The node's GPUs and their health as one value, and the board where it is read and replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from deviceplugin.nvml_interface import MigDevice
from topology.gpuset import EMPTY, GpuSet, gpuset
from topology.model import NodeTopology

NO_GPUS = NodeTopology(gpus=(), nvlinks=(), switch=(), pcie=())


class Inventory(msgspec.Struct, frozen=True):
    """What the node has now.

    `unhealthy` maps the uuid of each failed GPU to the reason, and that of each failed MIG device.
    `mig` has the uuid of each GPU in MIG mode, with its MIG devices: () if it is not cut.
    """

    topology: NodeTopology = NO_GPUS
    unhealthy: dict[str, str] = {}
    mig: dict[str, tuple[MigDevice, ...]] = {}

    def failed(self) -> GpuSet:
        """Return the failed GPUs as a set."""
        if not self.unhealthy:
            return EMPTY
        return gpuset(
            position
            for position, gpu in enumerate(self.topology.gpus)
            if gpu.uuid in self.unhealthy
        )


class Board:
    """Holds the newest inventory. One thread posts; any thread reads.

    Listeners are called in the posting thread after each change, and must not block.
    """

    def __init__(self) -> None:
        self._inventory = Inventory()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Inventory], None]] = []

    def read(self) -> Inventory:
        """Return the newest inventory."""
        return self._inventory

    def listen(self, listener: Callable[[Inventory], None]) -> None:
        """Call `listener` with every later inventory."""
        with self._lock:
            self._listeners.append(listener)

    def post(self, inventory: Inventory) -> bool:
        """Replace the inventory and tell the listeners; False if nothing has changed."""
        with self._lock:
            if inventory == self._inventory:
                return False
            self._inventory = inventory
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(inventory)
        return True
