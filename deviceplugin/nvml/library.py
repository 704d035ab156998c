"""`Nvml` over unmodified pynvml, which has its quirks: they end here."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Final, Self

import pynvml

from deviceplugin.errors import NvmlError
from deviceplugin.nvml.call import call, text
from deviceplugin.nvml.interface import (
    Code,
    Device,
    EventSet,
    EventType,
    Link,
    MigDevice,
    Nvml,
    NvmlEvent,
    RemoteType,
    Vitals,
)
from deviceplugin.nvml.mig import read_mig_devices, read_mig_mode
from deviceplugin.nvml.vitals import read_vitals
from topology.links import LEVEL_OF_NVML, MAX_NVLINKS, Level
from topology.model import Clique
from topology.pci import normalise_pci

__all__ = [
    "Code",
    "Device",
    "EventSet",
    "EventType",
    "Link",
    "MigDevice",
    "Nvml",
    "NvmlError",
    "NvmlEvent",
    "PynvmlNvml",
    "RemoteType",
    "open_nvml",
]

_MASK_WORDS: Final = 64
"""Words of 64 bits in an affinity mask: 4,096 CPUs or NUMA nodes."""
_WHOLE_GPU: Final = 0xFFFFFFFF


def open_nvml() -> PynvmlNvml:
    """Initialise NVML through pynvml; close what is returned, or use it in a `with`.

    Raises NvmlError: LIBRARY_NOT_FOUND without a driver's library, DRIVER_NOT_LOADED without the
    driver, LIB_RM_VERSION_MISMATCH after an upgrade beneath a running container.
    """
    call(pynvml.nvmlInit)
    return PynvmlNvml()


def _members(mask: Any) -> tuple[int, ...]:
    return tuple(
        word * 64 + bit for word, bits in enumerate(mask) for bit in range(64) if bits >> bit & 1
    )


def _pointer(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _remote_type(number: int) -> RemoteType:
    try:
        return RemoteType(number)
    except ValueError:
        return RemoteType.UNKNOWN


def _address(value: Any) -> str | None:
    try:
        return normalise_pci(text(value))
    except ValueError:
        return None


class PynvmlEventSet:
    """An event set over pynvml."""

    def __init__(self) -> None:
        self._handle = call(pynvml.nvmlEventSetCreate)
        self._uuids: dict[int, str] = {}
        self._closed = False

    def register(self, device: Device, mask: int) -> None:
        """Watch a GPU for the events of `mask`, as far as it supports them.

        A mask beyond the supported types would fail as a whole, so it is cut first; with nothing
        left of it this raises NOT_SUPPORTED.
        """
        supported = call(pynvml.nvmlDeviceGetSupportedEventTypes, device)
        if not mask & supported:
            raise NvmlError(Code.NOT_SUPPORTED, "NOT_SUPPORTED", "nvmlDeviceRegisterEvents")
        # Before it: a GPU that is lost with its last event cannot say any more who it is.
        self._uuids[_pointer(device)] = text(call(pynvml.nvmlDeviceGetUUID, device))
        call(
            pynvml.nvmlDeviceRegisterEvents,
            device,
            mask & supported,
            self._handle,
        )

    def wait(self, timeout: float) -> NvmlEvent | None:
        """Return the next event, None after `timeout` seconds."""
        milliseconds = max(0, min(round(timeout * 1000), 0xFFFFFFFE))
        try:
            data = call(pynvml.nvmlEventSetWait_v2, self._handle, milliseconds)
        except NvmlError as error:
            if error.code == Code.TIMEOUT:
                return None
            raise
        # The event's handle is a fresh object: its uuid tells whose it is, else where it points.
        try:
            uuid = text(call(pynvml.nvmlDeviceGetUUID, data.device))
        except NvmlError:
            uuid = self._uuids.get(_pointer(data.device), "")
        gpu_instance, compute_instance = int(data.gpuInstanceId), int(data.computeInstanceId)
        return NvmlEvent(
            uuid=uuid,
            type=int(data.eventType),
            data=int(data.eventData),
            gpu_instance=None if gpu_instance == _WHOLE_GPU else gpu_instance,
            compute_instance=None if compute_instance == _WHOLE_GPU else compute_instance,
        )

    def close(self) -> None:
        """Free the set; once is enough."""
        if not self._closed:
            self._closed = True
            call(pynvml.nvmlEventSetFree, self._handle)


class PynvmlNvml:
    """`Nvml` over pynvml. It holds one of NVML's initialisations until `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the initialisation back; once is enough, and a dead NVML is no error here."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        try:
            call(pynvml.nvmlShutdown)
        except NvmlError:
            return

    def driver_version(self) -> str:
        """Return the driver's version."""
        return text(call(pynvml.nvmlSystemGetDriverVersion))

    def cuda_version(self) -> str:
        """Return the CUDA version of the driver."""
        number = int(call(pynvml.nvmlSystemGetCudaDriverVersion_v2))
        return f"{number // 1000}.{number % 1000 // 10}"

    def count(self) -> int:
        """Return how many GPUs NVML has numbered."""
        return int(call(pynvml.nvmlDeviceGetCount))

    def device(self, index: int) -> Device:
        """Return the handle of the GPU with this index."""
        return Device(call(pynvml.nvmlDeviceGetHandleByIndex, index))

    def uuid(self, device: Device) -> str:
        """Return the GPU's uuid."""
        return text(call(pynvml.nvmlDeviceGetUUID, device))

    def name(self, device: Device) -> str:
        """Return the product's name."""
        return text(call(pynvml.nvmlDeviceGetName, device))

    def pci(self, device: Device) -> str:
        """Return the PCI address; NVML's own form has a domain of eight digits."""
        info = call(pynvml.nvmlDeviceGetPciInfo_v3, device)
        address = _address(info.busId)
        if address is None:
            raise NvmlError(
                Code.UNKNOWN, "UNKNOWN", "nvmlDeviceGetPciInfo", f"bus id {text(info.busId)!r}"
            )
        return address

    def minor(self, device: Device) -> int:
        """Return N of /dev/nvidiaN."""
        return int(call(pynvml.nvmlDeviceGetMinorNumber, device))

    def compute_capability(self, device: Device) -> str:
        """Return the CUDA compute capability."""
        major, minor = call(pynvml.nvmlDeviceGetCudaComputeCapability, device)
        return f"{major}.{minor}"

    def memory_mib(self, device: Device) -> int:
        """Return the GPU's memory in MiB."""
        memory = call(pynvml.nvmlDeviceGetMemoryInfo, device)
        return int(memory.total) >> 20

    def pcie_generation(self, device: Device) -> int:
        """Return the PCIe generation."""
        return int(
            call(
                pynvml.nvmlDeviceGetMaxPcieLinkGeneration,
                device,
            )
        )

    def cpu_affinity(self, device: Device) -> tuple[int, ...]:
        """Return the near CPUs."""
        return _members(call(pynvml.nvmlDeviceGetCpuAffinity, device, _MASK_WORDS))

    def memory_affinity(self, device: Device) -> tuple[int, ...]:
        """Return the near NUMA nodes."""
        return _members(
            call(
                pynvml.nvmlDeviceGetMemoryAffinity,
                device,
                _MASK_WORDS,
                pynvml.NVML_AFFINITY_SCOPE_NODE,
            )
        )

    def common_ancestor(self, first: Device, second: Device) -> Level:
        """Return the PCIe level of two GPUs."""
        number = call(pynvml.nvmlDeviceGetTopologyCommonAncestor, first, second)
        level = LEVEL_OF_NVML.get(int(number))
        if level is None:
            raise NvmlError(
                Code.UNKNOWN, "UNKNOWN", "nvmlDeviceGetTopologyCommonAncestor", f"level {number}"
            )
        return level

    def nvlink_access(self, first: Device, second: Device) -> bool:
        """Return whether the two GPUs reach each other's memory over NVLink."""
        status = call(
            pynvml.nvmlDeviceGetP2PStatus,
            first,
            second,
            pynvml.NVML_P2P_CAPS_INDEX_NVLINK,
        )
        return bool(status == pynvml.NVML_P2P_STATUS_OK)

    def links(self, device: Device) -> tuple[Link, ...]:
        """Return the active NVLinks: numbers run until NVML calls one invalid."""
        links: list[Link] = []
        for number in range(MAX_NVLINKS):
            try:
                state = call(pynvml.nvmlDeviceGetNvLinkState, device, number)
            except NvmlError as error:
                if error.code == Code.INVALID_ARGUMENT:
                    break
                if error.code in (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND):
                    if number == 0:
                        break
                    continue
                raise
            if state:  # on, or asleep to save power
                links.append(self._link(device, number))
        return tuple(links)

    def _link(self, device: Device, number: int) -> Link:
        """Ask for the far end; an old driver or a hypervisor may hide either answer."""
        remote, address = RemoteType.UNKNOWN, None
        try:
            info = call(
                pynvml.nvmlDeviceGetNvLinkRemotePciInfo,
                device,
                number,
            )
            address = _address(info.busId)
        except NvmlError as error:
            if error.code == Code.GPU_IS_LOST:
                raise
        try:
            remote = _remote_type(
                int(
                    call(
                        pynvml.nvmlDeviceGetNvLinkRemoteDeviceType,
                        device,
                        number,
                    )
                )
            )
        except NvmlError as error:
            if error.code == Code.GPU_IS_LOST:
                raise
        return Link(number=number, remote=remote, remote_pci=address)

    def clique(self, device: Device) -> Clique | None:
        """Return the clique if the fabric is complete, succeeded, and has a uuid.

        HGX boards report a complete fabric with a uuid of zeros: that is no multi-node domain.
        """
        info = pynvml.c_nvmlGpuFabricInfo_t()
        try:
            call(_fabric_info, device, info)
        except NvmlError as error:
            if error.code in (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND):
                return None
            raise
        cluster = bytes(info.clusterUuid)
        complete = int(info.state) == pynvml.NVML_GPU_FABRIC_STATE_COMPLETED
        if not complete or int(info.status) != pynvml.NVML_SUCCESS or not any(cluster):
            return None
        digits = cluster.hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return Clique(
            cluster_uuid="-".join(parts),
            clique_id=int(info.cliqueId),
        )

    def mig_mode(self, device: Device) -> bool | None:
        """Return whether the GPU is in MIG mode, None for one without MIG."""
        return read_mig_mode(device)

    def mig_devices(self, device: Device) -> tuple[MigDevice, ...]:
        """Return the GPU's MIG devices by index."""
        return read_mig_devices(device)

    def vitals(self, device: Device) -> Vitals:
        """Return how the GPU fares."""
        return read_vitals(device)

    def event_set(self) -> PynvmlEventSet:
        """Make an empty event set."""
        return PynvmlEventSet()


def _fabric_info(device: Any, info: Any) -> None:
    pynvml.nvmlDeviceGetGpuFabricInfo(device, ctypes.byref(info))
