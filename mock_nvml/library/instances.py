"""Cutting GPUs: kinds of instances, creating and destroying them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import (
    Kind,
    address_of,
    address_of_part,
    check_version,
    compute_of,
    fail,
    gpu_of,
    instance_of,
    make_handle,
    number,
    target,
    write,
    write_handle,
)
from mock_nvml.mig import ComputeInstance, GpuInstance
from mock_nvml.mig_profiles import (
    COMPUTE_KEYS,
    MigProfile,
    instance_memory_mib,
    profile_name,
)
from mock_nvml.state import GpuState

_SLICES_OF_KEY = {key: slices for slices, key in COMPUTE_KEYS.items()}


def _profile(gpu: GpuState, profile: MigProfile | None) -> MigProfile:
    gpu.mig.known_geometry()
    if profile is None:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return profile


def _fill_profile(struct: Any, gpu: GpuState, profile: MigProfile) -> None:
    geometry = gpu.mig.known_geometry()
    struct.id = profile.id
    struct.isP2pSupported = 0
    struct.sliceCount = profile.slices
    struct.instanceCount = profile.most
    struct.multiprocessorCount = profile.multiprocessors
    (
        struct.copyEngineCount,
        struct.decoderCount,
        struct.encoderCount,
        struct.jpegCount,
        struct.ofaCount,
    ) = profile.engines
    struct.memorySizeMB = instance_memory_mib(gpu.product, geometry, profile)
    if hasattr(struct, "name"):
        struct.name = f"MIG {profile_name(gpu.product, geometry, profile)}".encode()


def nvmlDeviceGetGpuInstanceProfileInfo(client: Client, handle: Any, key: Any, info: Any) -> None:
    """Write what a kind of GPU instance is; NOT_SUPPORTED for one that the product lacks."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetGpuInstanceProfileInfo")
    found = _profile(gpu, gpu.mig.known_geometry().by_key(number(key)))
    _fill_profile(target(info), gpu, found)


def nvmlDeviceGetGpuInstanceProfileInfoV(client: Client, handle: Any, key: Any, info: Any) -> None:
    """Write the same with the profile's name."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetGpuInstanceProfileInfoV")
    found = _profile(gpu, gpu.mig.known_geometry().by_key(number(key)))
    check_version(target(info))
    _fill_profile(target(info), gpu, found)


def nvmlDeviceGetGpuInstanceProfileInfoByIdV(
    client: Client, handle: Any, profile: Any, info: Any
) -> None:
    """Write the same for the number that creation wants."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetGpuInstanceProfileInfoByIdV")
    check_version(target(info))
    _fill_profile(target(info), gpu, _by_id(gpu, profile))


def _by_id(gpu: GpuState, profile: Any) -> MigProfile:
    found = gpu.mig.known_geometry().by_id(number(profile))
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return found


def _in_mig(client: Client, handle: Any, function: str) -> GpuState:
    gpu = gpu_of(client, handle, function)
    gpu.mig.known_geometry()
    if not gpu.mig.enabled:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return gpu


def nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    client: Client, handle: Any, profile: Any, placements: Any, count: Any
) -> None:
    """Write where a kind of instance may lie at all; without an array only how many places."""
    gpu = _in_mig(client, handle, "nvmlDeviceGetGpuInstancePossiblePlacements_v2")
    found = _by_id(gpu, profile)
    _write_placements(placements, count, [(start, found.size) for start in found.starts])


def _write_placements(placements: Any, count: Any, found: Sequence[tuple[int, int]]) -> None:
    if placements is not None:
        if number(target(count)) < len(found):
            raise fail(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for cell, (start, size) in zip(_cells(placements), found, strict=False):
            cell.start, cell.size = start, size
    write(count, len(found))


def _cells(array: Any) -> Any:
    return getattr(array, "_obj", array)


def nvmlDeviceGetGpuInstanceRemainingCapacity(
    client: Client, handle: Any, profile: Any, count: Any
) -> None:
    """Write how many instances of a kind still fit; that depends on where the others lie."""
    gpu = _in_mig(client, handle, "nvmlDeviceGetGpuInstanceRemainingCapacity")
    write(count, gpu.mig.remaining(_by_id(gpu, profile)))


def nvmlDeviceCreateGpuInstance(client: Client, handle: Any, profile: Any, instance: Any) -> None:
    """Create an instance wherever it fits."""
    gpu = _in_mig(client, handle, "nvmlDeviceCreateGpuInstance")
    made = gpu.mig.create(_by_id(gpu, profile))
    write_handle(instance, address_of_part(client, Kind.GPU_INSTANCE, made.number))
    client.state.report_mig_change(gpu)


def nvmlDeviceCreateGpuInstanceWithPlacement(
    client: Client, handle: Any, profile: Any, placement: Any, instance: Any
) -> None:
    """Create an instance in a place."""
    gpu = _in_mig(client, handle, "nvmlDeviceCreateGpuInstanceWithPlacement")
    made = gpu.mig.create(_by_id(gpu, profile), target(placement).start)
    write_handle(instance, address_of_part(client, Kind.GPU_INSTANCE, made.number))
    client.state.report_mig_change(gpu)


def _instance(client: Client, handle: Any) -> tuple[GpuState, GpuInstance]:
    found = instance_of(client, handle)
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if found[0].lost:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    return found


def nvmlGpuInstanceDestroy(client: Client, handle: Any) -> None:
    """Destroy an instance; IN_USE while it has compute instances."""
    gpu, instance = _instance(client, handle)
    gpu.mig.destroy(instance)
    client.state.report_mig_change(gpu)


def nvmlDeviceGetGpuInstances(
    client: Client, handle: Any, profile: Any, instances: Any, count: Any
) -> None:
    """Write the instances of a kind; the array has room for as many as there could be."""
    gpu = _in_mig(client, handle, "nvmlDeviceGetGpuInstances")
    wanted = _by_id(gpu, profile)
    found = [one for one in gpu.mig.instances.values() if one.profile is wanted]
    _write_parts(client, Kind.GPU_INSTANCE, instances, count, [one.number for one in found])


def _write_parts(
    client: Client, kind: Kind, array: Any, count: Any, numbers: Sequence[int]
) -> None:
    cells = _cells(array)
    for at, one in enumerate(numbers):
        ctypes.c_void_p.from_buffer(
            cells, at * ctypes.sizeof(ctypes.c_void_p)
        ).value = address_of_part(client, kind, one)
    write(count, len(numbers))


def nvmlDeviceGetGpuInstanceById(
    client: Client, handle: Any, instance_id: Any, instance: Any
) -> None:
    """Write the handle of the instance with an id."""
    gpu = _in_mig(client, handle, "nvmlDeviceGetGpuInstanceById")
    found = gpu.mig.instances.get(number(instance_id))
    if found is None:
        raise fail(pynvml.NVML_ERROR_NOT_FOUND)
    write_handle(instance, address_of_part(client, Kind.GPU_INSTANCE, found.number))


def nvmlGpuInstanceGetInfo(client: Client, handle: Any, info: Any) -> None:
    """Write an instance's id, kind and place."""
    gpu, instance = _instance(client, handle)
    struct = target(info)
    struct.device = make_handle(address_of(client, gpu.position))
    struct.id, struct.profileId = instance.id, instance.profile.id
    struct.placement.start, struct.placement.size = instance.start, instance.profile.size


def _compute_profile(
    client: Client, handle: Any, key: Any, info: Any, check: Callable[[Any], None]
) -> None:
    _, instance = _instance(client, handle)
    slices = _SLICES_OF_KEY.get(number(key), 0)
    if not 0 < slices <= instance.profile.slices:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    struct = target(info)
    check(struct)
    struct.id, struct.sliceCount = COMPUTE_KEYS[slices], slices
    struct.instanceCount = instance.profile.slices // slices
    struct.multiprocessorCount = instance.profile.multiprocessors_of(slices)
    (
        struct.sharedCopyEngineCount,
        struct.sharedDecoderCount,
        struct.sharedEncoderCount,
        struct.sharedJpegCount,
        struct.sharedOfaCount,
    ) = instance.profile.engines


def nvmlGpuInstanceGetComputeInstanceProfileInfo(
    client: Client, handle: Any, key: Any, engine: Any, info: Any
) -> None:
    """Write what a kind of compute instance would be in an instance."""
    _compute_profile(client, handle, key, info, lambda _: None)


def nvmlGpuInstanceGetComputeInstanceProfileInfoV(
    client: Client, handle: Any, key: Any, engine: Any, info: Any
) -> None:
    """Write the same into a versioned struct."""
    _compute_profile(client, handle, key, info, check_version)


def _slices(instance: GpuInstance, profile: Any) -> int:
    slices = _SLICES_OF_KEY.get(number(profile))
    if slices is None or slices > instance.profile.slices:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return slices


def nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
    client: Client, handle: Any, profile: Any, count: Any
) -> None:
    """Write how many compute instances of a kind still fit."""
    _, instance = _instance(client, handle)
    write(count, len(instance.compute_starts(_slices(instance, profile))))


def nvmlGpuInstanceGetComputeInstancePossiblePlacements(
    client: Client, handle: Any, profile: Any, placements: Any, count: Any
) -> None:
    """Write where a kind of compute instance may still lie."""
    _, instance = _instance(client, handle)
    slices = _slices(instance, profile)
    _write_placements(
        placements, count, [(start, slices) for start in instance.compute_starts(slices)]
    )


def _hand_out_compute(client: Client, gpu: GpuState, compute: ComputeInstance, handle: Any) -> None:
    write_handle(handle, address_of_part(client, Kind.COMPUTE_INSTANCE, compute.number))
    client.state.report_mig_change(gpu)


def nvmlGpuInstanceCreateComputeInstance(
    client: Client, handle: Any, profile: Any, compute: Any
) -> None:
    """Create a compute instance, and with it a MIG device."""
    gpu, instance = _instance(client, handle)
    made = gpu.mig.create_compute(instance, _slices(instance, profile))
    _hand_out_compute(client, gpu, made, compute)


def nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    client: Client, handle: Any, profile: Any, placement: Any, compute: Any
) -> None:
    """Create a compute instance in a place."""
    gpu, instance = _instance(client, handle)
    start = target(placement).start
    made = gpu.mig.create_compute(instance, _slices(instance, profile), start)
    _hand_out_compute(client, gpu, made, compute)


def _compute(client: Client, handle: Any) -> tuple[GpuState, GpuInstance, ComputeInstance]:
    found = compute_of(client, handle, Kind.COMPUTE_INSTANCE)
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return found


def nvmlComputeInstanceDestroy(client: Client, handle: Any) -> None:
    """Destroy a compute instance and its MIG device."""
    gpu, instance, compute = _compute(client, handle)
    gpu.mig.destroy_compute(instance, compute)
    client.state.report_mig_change(gpu)


def nvmlGpuInstanceGetComputeInstances(
    client: Client, handle: Any, profile: Any, computes: Any, count: Any
) -> None:
    """Write the compute instances of a kind."""
    _, instance = _instance(client, handle)
    slices = _slices(instance, profile)
    found = [one.number for one in instance.compute.values() if one.slices == slices]
    _write_parts(client, Kind.COMPUTE_INSTANCE, computes, count, found)


def nvmlGpuInstanceGetComputeInstanceById(
    client: Client, handle: Any, compute_id: Any, compute: Any
) -> None:
    """Write the handle of the compute instance with an id."""
    _, instance = _instance(client, handle)
    found = instance.compute.get(number(compute_id))
    if found is None:
        raise fail(pynvml.NVML_ERROR_NOT_FOUND)
    write_handle(compute, address_of_part(client, Kind.COMPUTE_INSTANCE, found.number))


def nvmlComputeInstanceGetInfo_v2(client: Client, handle: Any, info: Any) -> None:
    """Write a compute instance's id, kind, place, and what it is a part of."""
    gpu, instance, compute = _compute(client, handle)
    struct = target(info)
    struct.device = make_handle(address_of(client, gpu.position))
    ctypes.c_void_p.from_buffer(struct, type(struct).gpuInstance.offset).value = address_of_part(
        client, Kind.GPU_INSTANCE, instance.number
    )
    struct.id, struct.profileId = compute.id, COMPUTE_KEYS[compute.slices]
    struct.placement.start, struct.placement.size = compute.start, compute.slices
