"""NVLinks and the fabric beyond the node."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import check_version, fail, gpu_of, number, target, write
from mock_nvml.library.devices import write_pci
from mock_nvml.state import GpuState
from mock_nvml.wiring import LinkState

_SWITCH_ID: Final = 0x22A310DE
"""PCI ids of an NVSwitch."""
_NOWHERE: Final = b"fffffff:ffff:ff"
"""What a guest reads as the far end's bus id when the hypervisor hides the switch."""
_HEALTHY: Final = 0x2
_FABRIC_STATES: Final = {"not_started": 1, "in_progress": 2, "completed": 3}


def _link(client: Client, handle: Any, link: Any, function: str) -> tuple[GpuState, LinkState]:
    gpu = gpu_of(client, handle, function)
    if not gpu.links:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    if not 0 <= number(link) < len(gpu.links):
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return gpu, gpu.links[number(link)]


def _active(client: Client, handle: Any, link: Any, function: str) -> LinkState:
    _, found = _link(client, handle, link, function)
    if not found.active:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return found


def nvmlDeviceGetNvLinkState(client: Client, handle: Any, link: Any, active: Any) -> None:
    """Write whether a link is up."""
    _, found = _link(client, handle, link, "nvmlDeviceGetNvLinkState")
    write(active, int(found.active))


def nvmlDeviceGetNvLinkVersion(client: Client, handle: Any, link: Any, version: Any) -> None:
    """Write NVML's number of the NVLink version."""
    gpu, _ = _link(client, handle, link, "nvmlDeviceGetNvLinkVersion")
    write(version, gpu.product.nvlink_version)


def nvmlDeviceGetNvLinkCapability(
    client: Client, handle: Any, link: Any, capability: Any, answer: Any
) -> None:
    """Write whether a link can do something: P2P and atomics over it, no SLI, no system memory."""
    _, found = _link(client, handle, link, "nvmlDeviceGetNvLinkCapability")
    able = (
        pynvml.NVML_NVLINK_CAP_P2P_SUPPORTED,
        pynvml.NVML_NVLINK_CAP_P2P_ATOMICS,
        pynvml.NVML_NVLINK_CAP_VALID,
    )
    write(answer, int(found.active and number(capability) in able))


def nvmlDeviceGetNvLinkErrorCounter(
    client: Client, handle: Any, link: Any, counter: Any, value: Any
) -> None:
    """Write 0: links fail as a whole or not at all."""
    _active(client, handle, link, "nvmlDeviceGetNvLinkErrorCounter")
    write(value, 0)


def nvmlDeviceGetNvLinkRemotePciInfo_v2(client: Client, handle: Any, link: Any, info: Any) -> None:
    """Write the far end's PCI address."""
    found = _active(client, handle, link, "nvmlDeviceGetNvLinkRemotePciInfo_v2")
    if not found.remote_pci:
        struct = target(info)
        ctypes.memset(ctypes.addressof(struct), 0, ctypes.sizeof(struct))
        struct.busId = struct.busIdLegacy = _NOWHERE
        return
    if found.peer is None:
        write_pci(info, found.remote_pci, _SWITCH_ID)
    else:
        write_pci(info, found.remote_pci, client.gpus[found.peer[0]].product.pci_device_id)


def nvmlDeviceGetNvLinkRemoteDeviceType(client: Client, handle: Any, link: Any, kind: Any) -> None:
    """Write what the far end is."""
    found = _active(client, handle, link, "nvmlDeviceGetNvLinkRemoteDeviceType")
    write(kind, found.remote_type)


def _fill_fabric(client: Client, handle: Any, struct: Any, function: str) -> None:
    """Say how the board stands with a fabric manager.

    A single board completes with a uuid of zeros; a multi-node fabric has a uuid, and a clique.
    """
    gpu = gpu_of(client, handle, function)
    if "fabric" not in gpu.product.features or not client.machine.nvlink.nvswitch:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    told = client.machine.fabric
    shared = told is not None and told.cluster_uuid_nonzero
    for at in range(16):
        struct.clusterUuid[at] = client.state.cluster_uuid[at] if shared else 0
    struct.status = pynvml.NVML_SUCCESS
    struct.cliqueId = int(told is not None and told.clique_nonzero)
    struct.state = _FABRIC_STATES.get(told.state if told else "completed", 3)


def nvmlDeviceGetGpuFabricInfo(client: Client, handle: Any, info: Any) -> None:
    """Fill the first form of the fabric struct."""
    _fill_fabric(client, handle, target(info), "nvmlDeviceGetGpuFabricInfo")


def nvmlDeviceGetGpuFabricInfoV(client: Client, handle: Any, info: Any) -> None:
    """Fill the versioned forms; links that are down show as degraded bandwidth."""
    struct = target(info)
    check_version(struct)
    _fill_fabric(client, handle, struct, "nvmlDeviceGetGpuFabricInfoV")
    degraded = not all(link.active for link in gpu_of(client, handle).links)
    struct.healthMask = 0xA8 | (1 if degraded else _HEALTHY)
    if hasattr(struct, "healthSummary"):
        struct.healthSummary = 3 if degraded else 1
