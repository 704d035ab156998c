"""Which GPUs there are and what they are."""

from __future__ import annotations

from typing import Any

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import (
    Kind,
    address_of,
    address_of_part,
    compute_of,
    fail,
    gpu_of,
    number,
    target,
    write,
    write_handle,
    write_text,
)
from mock_nvml.mig_profiles import profile_name
from mock_nvml.state import GpuState
from topology.pci import normalise_pci

_SUBSYSTEM = 0x10DE
_LANES = 16


def nvmlDeviceGetCount_v2(client: Client, count: Any) -> None:
    """Count the GPUs of the last initialisation, lost ones included."""
    write(count, len(client.enumerated))


def _hand_out(client: Client, gpu: GpuState, handle: Any, function: str) -> None:
    if gpu.lost and function not in gpu.answers:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    write_handle(handle, address_of(client, gpu.position))


def nvmlDeviceGetHandleByIndex_v2(client: Client, index: Any, handle: Any) -> None:
    """Write the handle of the GPU with an index."""
    at = number(index)
    if not 0 <= at < len(client.enumerated):
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    gpu = client.gpus[client.enumerated[at]]
    _hand_out(client, gpu, handle, "nvmlDeviceGetHandleByIndex_v2")


def nvmlDeviceGetHandleByUUID(client: Client, uuid: Any, handle: Any) -> None:
    """Write the handle of the GPU or MIG device with a uuid, also of MIG's old form."""
    wanted = (uuid.value or b"").decode(errors="replace")
    for position in client.enumerated:
        gpu = client.gpus[position]
        if gpu.uuid == wanted:
            _hand_out(client, gpu, handle, "nvmlDeviceGetHandleByUUID")
            return
        for instance, compute in gpu.mig.devices():
            if wanted in (compute.uuid, f"MIG-{gpu.uuid}/{instance.id}/{compute.id}"):
                write_handle(handle, address_of_part(client, Kind.MIG_DEVICE, compute.number))
                return
    raise fail(pynvml.NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetHandleByPciBusId_v2(client: Client, pci: Any, handle: Any) -> None:
    """Write the handle of the GPU at a PCI address, in any of its usual forms."""
    try:
        wanted = normalise_pci((pci.value or b"").decode(errors="replace"))
    except ValueError:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT) from None
    for position in client.enumerated:
        if client.gpus[position].pci == wanted:
            _hand_out(client, client.gpus[position], handle, "nvmlDeviceGetHandleByPciBusId_v2")
            return
    raise fail(pynvml.NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetName(client: Client, handle: Any, buffer: Any, size: Any) -> None:
    """Write the product's name; a MIG device's has its profile behind it."""
    part = compute_of(client, handle, Kind.MIG_DEVICE)
    if part is None:
        write_text(buffer, size, gpu_of(client, handle, "nvmlDeviceGetName").product.name)
        return
    gpu, instance, compute = part
    geometry = gpu.mig.known_geometry()
    profile = profile_name(gpu.product, geometry, instance.profile, compute.slices)
    write_text(buffer, size, f"{gpu.product.name} MIG {profile}")


def nvmlDeviceGetUUID(client: Client, handle: Any, buffer: Any, size: Any) -> None:
    """Write the uuid."""
    part = compute_of(client, handle, Kind.MIG_DEVICE)
    if part is None:
        write_text(buffer, size, gpu_of(client, handle, "nvmlDeviceGetUUID").uuid)
    else:
        write_text(buffer, size, part[2].uuid)


def nvmlDeviceGetSerial(client: Client, handle: Any, buffer: Any, size: Any) -> None:
    """Write the board's serial number."""
    uuid = gpu_of(client, handle, "nvmlDeviceGetSerial").uuid
    write_text(buffer, size, str(int(uuid[4:12], 16)).zfill(13))


def write_pci(info: Any, pci: str, device_id: int) -> None:
    """Fill NVML's PCI struct: `busId` has a domain of eight digits, the legacy form of four."""
    domain, bus, rest = pci.split(":")
    device = rest.split(".")[0]
    struct = target(info)
    struct.busIdLegacy = f"{domain}:{bus}:{rest}".upper().encode()
    struct.busId = f"{domain.zfill(8)}:{bus}:{rest}".upper().encode()
    struct.domain, struct.bus, struct.device = int(domain, 16), int(bus, 16), int(device, 16)
    struct.pciDeviceId = device_id
    struct.pciSubSystemId = _SUBSYSTEM


def nvmlDeviceGetPciInfo_v3(client: Client, handle: Any, info: Any) -> None:
    """Write the PCI address and ids."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetPciInfo_v3")
    write_pci(info, gpu.pci, gpu.product.pci_device_id)


def nvmlDeviceGetMinorNumber(client: Client, handle: Any, minor: Any) -> None:
    """Write N of /dev/nvidiaN, which stays when another GPU is unplugged."""
    write(minor, gpu_of(client, handle, "nvmlDeviceGetMinorNumber").position)


def nvmlDeviceGetIndex(client: Client, handle: Any, index: Any) -> None:
    """Write the index; a MIG device's is that within its GPU."""
    part = compute_of(client, handle, Kind.MIG_DEVICE)
    if part is not None:
        write(index, part[2].index)
        return
    gpu = gpu_of(client, handle, "nvmlDeviceGetIndex")
    write(index, client.enumerated.index(gpu.position))


def nvmlDeviceGetModuleId(client: Client, handle: Any, module: Any) -> None:
    """Write the slot on the baseboard."""
    write(module, gpu_of(client, handle, "nvmlDeviceGetModuleId").position + 1)


def nvmlDeviceGetBoardId(client: Client, handle: Any, board: Any) -> None:
    """Write the board's number."""
    write(board, gpu_of(client, handle, "nvmlDeviceGetBoardId").position << 8)


def nvmlDeviceGetArchitecture(client: Client, handle: Any, architecture: Any) -> None:
    """Write NVML's number of the architecture."""
    write(architecture, gpu_of(client, handle, "nvmlDeviceGetArchitecture").product.architecture)


def nvmlDeviceGetBrand(client: Client, handle: Any, brand: Any) -> None:
    """Write the brand."""
    geforce = "geforce" in gpu_of(client, handle, "nvmlDeviceGetBrand").product.features
    write(brand, pynvml.NVML_BRAND_GEFORCE if geforce else pynvml.NVML_BRAND_NVIDIA)


def nvmlDeviceGetCudaComputeCapability(client: Client, handle: Any, major: Any, minor: Any) -> None:
    """Write the compute capability."""
    compute = gpu_of(client, handle, "nvmlDeviceGetCudaComputeCapability").product.compute
    for place, part in zip((major, minor), compute.split("."), strict=True):
        write(place, int(part))


def nvmlDeviceGetMaxPcieLinkGeneration(client: Client, handle: Any, generation: Any) -> None:
    """Write the PCIe generation that GPU and slot have in common."""
    write(generation, gpu_of(client, handle, "nvmlDeviceGetMaxPcieLinkGeneration").product.pcie_gen)


nvmlDeviceGetGpuMaxPcieLinkGeneration = nvmlDeviceGetMaxPcieLinkGeneration
nvmlDeviceGetCurrPcieLinkGeneration = nvmlDeviceGetMaxPcieLinkGeneration


def nvmlDeviceGetMaxPcieLinkWidth(client: Client, handle: Any, width: Any) -> None:
    """Write the lanes."""
    gpu_of(client, handle, "nvmlDeviceGetMaxPcieLinkWidth")
    write(width, _LANES)


nvmlDeviceGetCurrPcieLinkWidth = nvmlDeviceGetMaxPcieLinkWidth


def nvmlDeviceGetPersistenceMode(client: Client, handle: Any, mode: Any) -> None:
    """Write that the driver stays loaded."""
    gpu_of(client, handle, "nvmlDeviceGetPersistenceMode")
    write(mode, pynvml.NVML_FEATURE_ENABLED)


def nvmlDeviceGetComputeMode(client: Client, handle: Any, mode: Any) -> None:
    """Write the default mode."""
    gpu_of(client, handle, "nvmlDeviceGetComputeMode")
    write(mode, pynvml.NVML_COMPUTEMODE_DEFAULT)
