"""MIG devices: what GPUs were cut into."""

from __future__ import annotations

from typing import Any

import pynvml

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
from mock_nvml.state import GpuState, MachineState


def nvmlDeviceGetMigMode(state: MachineState, handle: Any, current: Any, pending: Any) -> None:
    """Write the mode; products without MIG do not support the question."""
    mig = gpu_of(state, handle, "nvmlDeviceGetMigMode").mig
    mig.known_geometry()
    write(current, int(mig.enabled))
    write(pending, int(mig.enabled))


def nvmlDeviceSetMigMode(state: MachineState, handle: Any, mode: Any, status: Any) -> None:
    """Turn MIG on or off at once; with instances the activation status is IN_USE."""
    gpu = gpu_of(state, handle, "nvmlDeviceSetMigMode")
    write(status, pynvml.NVML_SUCCESS)
    if bool(number(mode)) == gpu.mig.enabled:
        gpu.mig.known_geometry()
        return
    gpu.mig.set_mode(enabled=bool(number(mode)))
    state.report_mig_change(gpu)


def nvmlDeviceGetMaxMigDeviceCount(state: MachineState, handle: Any, count: Any) -> None:
    """Write how many MIG devices there could be: 0 with MIG off."""
    write(count, gpu_of(state, handle, "nvmlDeviceGetMaxMigDeviceCount").mig.most_devices)


def nvmlDeviceGetMigDeviceHandleByIndex(
    state: MachineState, handle: Any, index: Any, device: Any
) -> None:
    """Write a MIG device's handle; indexes have holes where a device was destroyed."""
    gpu = gpu_of(state, handle, "nvmlDeviceGetMigDeviceHandleByIndex")
    at = number(index)
    if gpu.mig.enabled and not 0 <= at < gpu.mig.most_devices:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    for _, compute in gpu.mig.devices():
        if compute.index == at:
            write_handle(device, address_of_part(state, Kind.MIG_DEVICE, compute.number))
            return
    raise fail(pynvml.NVML_ERROR_NOT_FOUND)


def nvmlDeviceIsMigDeviceHandle(state: MachineState, handle: Any, answer: Any) -> None:
    """Write whether a handle is a MIG device's."""
    if compute_of(state, handle, Kind.MIG_DEVICE) is not None:
        write(answer, 1)
        return
    gpu_of(state, handle, "nvmlDeviceIsMigDeviceHandle")
    write(answer, 0)


def _device(
    state: MachineState, handle: Any, function: str
) -> tuple[GpuState, GpuInstance, ComputeInstance]:
    """Return whose MIG device a handle is; INVALID_ARGUMENT once it was destroyed."""
    found = compute_of(state, handle, Kind.MIG_DEVICE)
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if found[0].lost and function not in found[0].answers:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    return found


def nvmlDeviceGetGpuInstanceId(state: MachineState, handle: Any, answer: Any) -> None:
    """Write the id of the GPU instance that a MIG device lies in."""
    write(answer, _device(state, handle, "nvmlDeviceGetGpuInstanceId")[1].id)


def nvmlDeviceGetComputeInstanceId(state: MachineState, handle: Any, answer: Any) -> None:
    """Write the id of the compute instance that a MIG device is."""
    write(answer, _device(state, handle, "nvmlDeviceGetComputeInstanceId")[2].id)


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    state: MachineState, handle: Any, device: Any
) -> None:
    """Write the handle of the GPU that a MIG device is a part of."""
    gpu, _, _ = _device(state, handle, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
    write_handle(device, address_of(state, gpu.position))


def nvmlDeviceGetAttributes_v2(state: MachineState, handle: Any, attributes: Any) -> None:
    """Write what a MIG device consists of; a whole GPU has no attributes."""
    if compute_of(state, handle, Kind.MIG_DEVICE) is None:
        gpu_of(state, handle, "nvmlDeviceGetAttributes_v2")
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    gpu, instance, compute = _device(state, handle, "nvmlDeviceGetAttributes_v2")
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
