"""NVML as the plugin sees it: typed answers, opaque handles, one error.

Two handles of one GPU are neither equal nor hashable, so nothing is keyed by them. Every failure
is a NvmlError that keeps NVML's code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NewType, Protocol

import msgspec

from topology.links import Level
from topology.model import Clique

Device = NewType("Device", object)
"""A handle of NVML, good until the next `close`."""


class Code(IntEnum):
    """NVML's return codes that somebody decides by."""

    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIB_RM_VERSION_MISMATCH = 18
    GPU_NOT_FOUND = 28
    UNKNOWN = 999


FATAL: Final = (Code.GPU_IS_LOST, Code.UNINITIALIZED, Code.RESET_REQUIRED)
"""With these a GPU's silence is no missing feature: nothing it says can be used."""


class EventType(IntEnum):
    """Kinds of events that a GPU can be watched for; they combine to a mask."""

    SINGLE_BIT_ECC = 0x1
    DOUBLE_BIT_ECC = 0x2
    XID = 0x8
    MIG_CHANGE = 0x100


class RemoteType(IntEnum):
    """What the far end of an NVLink is."""

    GPU = 0
    CPU = 1
    SWITCH = 2
    UNKNOWN = 255


class Link(msgspec.Struct, frozen=True):
    """One active NVLink. `remote_pci` is None where the far end's address is hidden or nonsense."""

    number: int
    remote: RemoteType
    remote_pci: str | None


class DriverFacts(msgspec.Struct, frozen=True):
    """The driver's version and that of CUDA (``13.0``), "" where NVML does not tell.

    `mig_capable` has the uuids of the GPUs that MIG could be turned on for.
    """

    version: str = ""
    cuda: str = ""
    mig_capable: frozenset[str] = frozenset()


class MigEngines(msgspec.Struct, frozen=True):
    """How many engines of each kind a MIG device shares in."""

    copy: int = 0
    decoder: int = 0
    encoder: int = 0
    jpeg: int = 0
    ofa: int = 0


class MigDevice(msgspec.Struct, frozen=True):
    """A part of a GPU in MIG mode.

    `index` is that within its GPU. `profile` is the name that tools print (``3g.40gb``,
    ``1g.10gb+me``, ``1c.3g.40gb``). `gpu_minor` and `compute_minor` are N of
    /dev/nvidia-caps/nvidia-capN for the two instances, None where /proc does not tell.
    """

    uuid: str
    index: int
    gpu_instance: int
    compute_instance: int
    profile: str
    memory_mib: int = 0
    multiprocessors: int = 0
    gpu_slices: int = 0
    compute_slices: int = 0
    engines: MigEngines = MigEngines()
    gpu_minor: int | None = None
    compute_minor: int | None = None


class Vitals(msgspec.Struct, frozen=True):
    """A GPU's answers; None for what it does not support.

    `double_bit_errors` count since the driver was loaded. `links` is how many NVLinks are up.
    """

    celsius: int | None = None
    hot: bool | None = None
    double_bit_errors: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    links: int | None = None


class NvmlEvent(msgspec.Struct, frozen=True):
    """Something that happened to a GPU: for an XID `data` is its number.

    `uuid` is "" if the GPU can no longer say it. `gpu_instance` and `compute_instance` are None
    unless the fault belongs to a MIG instance.
    """

    uuid: str
    type: int
    data: int
    gpu_instance: int | None = None
    compute_instance: int | None = None


class EventSet(Protocol):
    """Watches GPUs for events."""

    def register(self, device: Device, mask: int) -> None:
        """Watch a GPU. NOT_SUPPORTED leaves the set usable for the others."""

    def wait(self, timeout: float) -> NvmlEvent | None:
        """Return the next event, None if `timeout` seconds brought none (perhaps earlier).

        With a lost GPU in the set this raises GPU_IS_LOST at once, each time.
        """

    def close(self) -> None:
        """Free the set."""


class Nvml(Protocol):
    """NVML as the plugin sees it. Every method but `close` raises NvmlError."""

    def driver_version(self) -> str:
        """Return the driver's version."""

    def cuda_version(self) -> str:
        """Return the CUDA version of the driver, such as ``13.0``."""

    def count(self) -> int:
        """Return how many GPUs NVML has numbered, lost ones included."""

    def device(self, index: int) -> Device:
        """Return the handle of the GPU with this index."""

    def uuid(self, device: Device) -> str:
        """Return the GPU's uuid."""

    def name(self, device: Device) -> str:
        """Return the product's name."""

    def pci(self, device: Device) -> str:
        """Return the PCI address as Linux writes it."""

    def minor(self, device: Device) -> int:
        """Return N of /dev/nvidiaN."""

    def compute_capability(self, device: Device) -> str:
        """Return the CUDA compute capability (``9.0``)."""

    def memory_mib(self, device: Device) -> int:
        """Return the GPU's memory in MiB."""

    def pcie_generation(self, device: Device) -> int:
        """Return the greatest PCIe generation that GPU and slot have in common."""

    def cpu_affinity(self, device: Device) -> tuple[int, ...]:
        """Return the near CPUs, cut by the caller's cpuset."""

    def memory_affinity(self, device: Device) -> tuple[int, ...]:
        """Return the near NUMA nodes."""

    def common_ancestor(self, first: Device, second: Device) -> Level:
        """Return the PCIe level of two GPUs."""

    def nvlink_access(self, first: Device, second: Device) -> bool:
        """Return whether the two GPUs reach each other's memory over NVLink."""

    def links(self, device: Device) -> tuple[Link, ...]:
        """Return the active NVLinks; () for a GPU that has none."""

    def clique(self, device: Device) -> Clique | None:
        """Return the multi-node NVLink domain of the GPU, None if it is in none."""

    def mig_mode(self, device: Device) -> bool | None:
        """Return whether the GPU is in MIG mode, None for one that cannot be."""

    def mig_devices(self, device: Device) -> tuple[MigDevice, ...]:
        """Return the GPU's MIG devices by index, without their minors; () if it is not cut."""

    def vitals(self, device: Device) -> Vitals:
        """Return how the GPU fares; what it does not support is None."""

    def event_set(self) -> EventSet:
        """Make an empty event set."""

    def close(self) -> None:
        """Shut NVML down; every handle and event set is void then."""
