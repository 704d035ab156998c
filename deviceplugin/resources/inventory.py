"""The node's GPUs and their health as one value, and the board where it is read and replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import msgspec

from deviceplugin.nvml.interface import DriverFacts, MigDevice
from deviceplugin.resources.devices import uuid_of
from topology.gpuset import GpuSet, gpuset
from topology.model import Gpu, NodeTopology

Cordoned = dict[str, frozenset[str]]
NO_GPUS = NodeTopology(gpus=(), nvlinks=(), switch=(), pcie=())


class Inventory(msgspec.Struct, frozen=True):
    """What the node has now.

    `unhealthy` maps the uuid of each failed GPU to the reason, and that of each failed MIG device.
    `mig` has the uuid of each GPU in MIG mode, with its MIG devices: () if it is not cut.
    `driver` is what NVML says of itself.
    `degraded` maps the uuid of each that works with a flaw to what it is. `cordoned` has the uuid
    of each GPU that is to get no new pod, with the ids of its devices that live pods still hold.
    """

    topology: NodeTopology = NO_GPUS
    unhealthy: dict[str, str] = {}
    mig: dict[str, tuple[MigDevice, ...]] = {}
    degraded: dict[str, str] = {}
    driver: DriverFacts = DriverFacts()
    cordoned: Cordoned = {}

    def failed(self) -> GpuSet:
        """Return what must not be given out: failed GPUs, and cordoned ones that are free."""
        return gpuset(
            position
            for position, gpu in enumerate(self.topology.gpus)
            if gpu.uuid in self.unhealthy or not self.cordoned.get(gpu.uuid, True)
        )


class Cordon(msgspec.Struct, frozen=True):
    """Which GPUs are to get no new pod, in the operator's words, and what live pods hold."""

    words: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()

    def resolve(self, topology: NodeTopology, mig: Mapping[str, tuple[MigDevice, ...]]) -> Cordoned:
        """Return the GPUs that are meant, with the devices of each that are held."""
        return {
            gpu.uuid: self._held_of(gpu.uuid, mig)
            for gpu in topology.gpus
            if any(_means(word, gpu) for word in self.words)
        }

    def _held_of(self, uuid: str, mig: Mapping[str, tuple[MigDevice, ...]]) -> frozenset[str]:
        parts = {uuid, *(one.uuid for one in mig.get(uuid, ()))}
        return frozenset(one for one in self.held if uuid_of(one) in parts)

    def unknown(self, topology: NodeTopology) -> tuple[str, ...]:
        """Return the words that mean no GPU of the node."""
        return tuple(
            word for word in self.words if not any(_means(word, gpu) for gpu in topology.gpus)
        )


def _means(word: str, gpu: Gpu) -> bool:
    if word == "all":
        return True
    if word.isdecimal():
        return int(word) == gpu.index
    return word == gpu.uuid or word.lower() in {gpu.pci, gpu.pci.removeprefix("0000:")}


class Board:
    """Holds the newest inventory: what the monitor posts, and what others lay over it.

    Any thread reads. Listeners are called after each change, one at a time and in order, in the
    thread that brought it; they must not block.
    """

    def __init__(self) -> None:
        self._posted = Inventory()
        self._silence: tuple[str, str | None] | None = None
        self._cordon = Cordon()
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

    def cordon(self, cordon: Cordon) -> bool:
        """Take GPUs out of service."""
        with self._telling:
            self._cordon = cordon
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
        cordoned = self._cordon.resolve(posted.topology, posted.mig)
        return msgspec.structs.replace(posted, unhealthy=unhealthy, cordoned=cordoned)
