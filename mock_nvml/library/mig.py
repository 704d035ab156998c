"""MIG devices: what GPUs were cut into."""

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
)
from mock_nvml.mig import ComputeInstance, GpuInstance
from mock_nvml.mig_profiles import instance_memory_mib
from mock_nvml.state import GpuState


def nvmlDeviceGetMigMode(client: Client, handle: Any, current: Any, pending: Any) -> None:
    """Write the mode; products without MIG do not support the question."""
    mig = gpu_of(client, handle, "nvmlDeviceGetMigMode").mig
    mig.known_geometry()
    write(current, int(mig.enabled))
    write(pending, int(mig.enabled))


def nvmlDeviceSetMigMode(client: Client, handle: Any, mode: Any, status: Any) -> None:
    """Turn MIG on or off at once; with instances the activation status is IN_USE."""
    gpu = gpu_of(client, handle, "nvmlDeviceSetMigMode")
    write(status, pynvml.NVML_SUCCESS)
    if bool(number(mode)) == gpu.mig.enabled:
        gpu.mig.known_geometry()
        return
    gpu.mig.set_mode(enabled=bool(number(mode)))
    client.state.report_mig_change(gpu)


def nvmlDeviceGetMaxMigDeviceCount(client: Client, handle: Any, count: Any) -> None:
    """Write how many MIG devices there could be: 0 with MIG off."""
    write(count, gpu_of(client, handle, "nvmlDeviceGetMaxMigDeviceCount").mig.most_devices)


def nvmlDeviceGetMigDeviceHandleByIndex(
    client: Client, handle: Any, index: Any, device: Any
) -> None:
    """Write a MIG device's handle; indexes have holes where a device was destroyed."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetMigDeviceHandleByIndex")
    at = number(index)
    if gpu.mig.enabled and not 0 <= at < gpu.mig.most_devices:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    for _, compute in gpu.mig.devices():
        if compute.index == at:
            write_handle(device, address_of_part(client, Kind.MIG_DEVICE, compute.number))
            return
    raise fail(pynvml.NVML_ERROR_NOT_FOUND)


def nvmlDeviceIsMigDeviceHandle(client: Client, handle: Any, answer: Any) -> None:
    """Write whether a handle is a MIG device's."""
    if compute_of(client, handle, Kind.MIG_DEVICE) is not None:
        write(answer, 1)
        return
    gpu_of(client, handle, "nvmlDeviceIsMigDeviceHandle")
    write(answer, 0)


def _device(
    client: Client, handle: Any, function: str
) -> tuple[GpuState, GpuInstance, ComputeInstance]:
    """Return whose MIG device a handle is; INVALID_ARGUMENT once it was destroyed."""
    found = compute_of(client, handle, Kind.MIG_DEVICE)
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if found[0].lost and function not in found[0].answers:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    return found


def nvmlDeviceGetGpuInstanceId(client: Client, handle: Any, answer: Any) -> None:
    """Write the id of the GPU instance that a MIG device lies in."""
    write(answer, _device(client, handle, "nvmlDeviceGetGpuInstanceId")[1].id)


def nvmlDeviceGetComputeInstanceId(client: Client, handle: Any, answer: Any) -> None:
    """Write the id of the compute instance that a MIG device is."""
    write(answer, _device(client, handle, "nvmlDeviceGetComputeInstanceId")[2].id)


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(client: Client, handle: Any, device: Any) -> None:
    """Write the handle of the GPU that a MIG device is a part of."""
    gpu, _, _ = _device(client, handle, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
    write_handle(device, address_of(client, gpu.position))


def nvmlDeviceGetAttributes_v2(client: Client, handle: Any, attributes: Any) -> None:
    """Write what a MIG device consists of; a whole GPU has no attributes."""
    if compute_of(client, handle, Kind.MIG_DEVICE) is None:
        gpu_of(client, handle, "nvmlDeviceGetAttributes_v2")
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    gpu, instance, compute = _device(client, handle, "nvmlDeviceGetAttributes_v2")
    profile = instance.profile
    struct = target(attributes)
    struct.multiprocessorCount = profile.multiprocessors_of(compute.slices)
    (
        struct.sharedCopyEngineCount,
        struct.sharedDecoderCount,
        struct.sharedEncoderCount,
        struct.sharedJpegCount,
        struct.sharedOfaCount,
    ) = profile.engines
    struct.gpuInstanceSliceCount = profile.slices
    struct.computeInstanceSliceCount = compute.slices
    struct.memorySizeMB = instance_memory_mib(gpu.product, gpu.mig.known_geometry(), profile)
