"""What kubelet counts: devices with ids, and the resources that hold them. Pure values."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Final

import msgspec

SEPARATOR: Final = "::"
"""Stands between a uuid and the number of a replica in a device's id."""


CORDONED: Final = "cordoned"
"""The problem of a device that is well and must get no new pod."""


class Sharing(StrEnum):
    """How several containers use one device."""

    NONE = "none"
    TIME_SLICING = "time-slicing"
    MPS = "mps"


class Device(msgspec.Struct, frozen=True):
    """One device of a resource.

    `id` is what kubelet calls it: the uuid of a GPU or MIG instance, with ``::<n>`` for a replica.
    `gpu` is the uuid of the physical GPU and `position` its place in the topology. `index` sorts
    devices and names them where indexes are wanted: (GPU,) or (GPU, MIG instance). `replicas` is
    how many of the kind there are on the uuid. `alias` is another uuid that people may know it by.
    `problem` is "" for a healthy one.
    """

    id: str
    uuid: str
    gpu: str
    position: int
    index: tuple[int, ...]
    numa_node: int | None = None
    replica: int = 0
    replicas: int = 1
    alias: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """The index as people write it: ``3``, or ``3:1`` for a MIG instance."""
        return ":".join(map(str, self.index))

    def is_called(self, name: str) -> bool:
        """Return whether a name means this device, what it is cut from, or its GPU."""
        return name in {self.id, self.uuid, self.gpu, self.alias}


def by_index(device: Device) -> tuple[tuple[int, ...], int]:
    """Return what devices are sorted by."""
    return device.index, device.replica


class Resource(msgspec.Struct, frozen=True, dict=True):
    """A resource as kubelet knows it, and how its devices may be asked for.

    `one_each` refuses a container that asks for more than one device, `distinct` one that would
    get two replicas of one GPU.
    """

    name: str
    devices: tuple[Device, ...] = ()
    sharing: Sharing = Sharing.NONE
    one_each: bool = False
    distinct: bool = False

    @cached_property
    def by_id(self) -> dict[str, Device]:
        """The devices by their ids."""
        return {device.id: device for device in self.devices}

    @cached_property
    def whole(self) -> bool:
        """Whether every device is a whole GPU that nobody shares: then links decide."""
        return all(device.id == device.gpu for device in self.devices)


def uuid_of(device_id: str) -> str:
    """Return the uuid that a device's id begins with."""
    return device_id.split(SEPARATOR, 1)[0]
