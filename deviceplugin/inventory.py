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
    `degraded` maps the uuid of each that works with a flaw to what it is. `cordoned` has the uuid
    of each GPU that is to get no new pod, and whether a live pod still holds it.
    """

    topology: NodeTopology = NO_GPUS
    unhealthy: dict[str, str] = {}
    mig: dict[str, tuple[MigDevice, ...]] = {}
    degraded: dict[str, str] = {}
    cordoned: dict[str, bool] = {}

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
    """Holds the newest inventory: what the monitor posts, and what others lay over it.

    Any thread reads. Listeners are called after each change, one at a time and in order, in the
    thread that brought it; they must not block.
    """

    def __init__(self) -> None:
        self._posted = Inventory()
        self._silence: tuple[str, str | None] | None = None
        self._cordoned: dict[str, bool] = {}
        self._inventory = Inventory()
        self._lock = threading.Lock()
        self._telling = threading.RLock()
        self._listeners: list[Callable[[Inventory], None]] = []

    def read(self) -> Inventory:
        """Return the newest inventory."""
        return self._inventory

    def listen(self, listener: Callable[[Inventory], None]) -> None:
        """Call `listener` with every later inventory."""
        with self._lock:
            self._listeners.append(listener)

    def post(self, inventory: Inventory) -> bool:
        """Replace what the monitor knows; False if nothing has changed."""
        with self._telling:
            self._posted = inventory
            return self._renew()

    def silence(self, reason: str | None, uuid: str | None = None) -> bool:
        """Call a GPU unhealthy, or all, since nobody can ask them; None takes it back."""
        with self._telling:
            self._silence = None if reason is None else (reason, uuid)
            return self._renew()

    def cordon(self, cordoned: dict[str, bool]) -> bool:
        """Take GPUs out of service; the value says whether a live pod still holds it."""
        with self._telling:
            self._cordoned = dict(cordoned)
            return self._renew()

    def _renew(self) -> bool:
        inventory = self._compose()
        with self._lock:
            if inventory == self._inventory:
                return False
            self._inventory = inventory
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(inventory)
        return True

    def _compose(self) -> Inventory:
        posted = self._posted
        known = [gpu.uuid for gpu in posted.topology.gpus]
        unhealthy = dict(posted.unhealthy)
        if self._silence is not None:
            reason, uuid = self._silence
            for one in known:
                if uuid in (None, one):
                    unhealthy.setdefault(one, reason)
        cordoned = {uuid: held for uuid, held in self._cordoned.items() if uuid in known}
        return msgspec.structs.replace(posted, unhealthy=unhealthy, cordoned=cordoned)
