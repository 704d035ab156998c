"""Reading and writing the ctypes arguments that pynvml hands to a C function."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

import pynvml

from mock_nvml.client import Client
from mock_nvml.errors import NvmlStatusError
from mock_nvml.mig import ComputeInstance, GpuInstance
from mock_nvml.state import GpuState

_HANDLE_STEP: Final = 0x100
_MAX_HANDLES: Final = 0x1000
_MAX_PARTS: Final = 1 << 24


class Kind(IntEnum):
    """What a handle is: its lowest byte. Each of the others is a number in its middle."""

    GPU = 0
    MIG_DEVICE = 1
    GPU_INSTANCE = 2
    COMPUTE_INSTANCE = 3


def fail(code: int) -> NvmlStatusError:
    """Return the exception that ends a C function with a code."""
    return NvmlStatusError(code)


def number(argument: Any) -> int:
    """Return an integer argument, given as a Python int or a ctypes scalar."""
    return int(getattr(argument, "value", argument))


def target(argument: Any) -> Any:
    """Return what a byref or pointer argument points to."""
    if argument is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if hasattr(argument, "_obj"):
        return argument._obj  # noqa: SLF001 - the documented way to what byref refers to
    return getattr(argument, "contents", argument)


def write(argument: Any, value: int) -> None:
    """Write a scalar through a byref argument."""
    target(argument).value = value


def write_text(buffer: Any, size: Any, text: str) -> None:
    """Write a text into a char buffer of `size` bytes, its end included."""
    data = text.encode()
    if len(data) + 1 > number(size):
        raise fail(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    buffer.value = data


def write_mask(argument: Any, size: Any, members: Iterable[int]) -> None:
    """Write a set as words of 64 bits; members beyond the array are cut, as NVML does."""
    words = target(argument)
    count = number(size)
    for word in range(count):
        words[word] = 0
    for member in members:
        if member // 64 < count:
            words[member // 64] |= 1 << (member % 64)


def address_of(client: Client, position: int) -> int:
    """Return the address that a handle of a GPU carries in this initialisation."""
    return (client.generation * _MAX_HANDLES + position + 1) * _HANDLE_STEP


def make_handle(address: int) -> Any:
    """Return a device handle; nobody dereferences it."""
    return ctypes.cast(address, pynvml.c_nvmlDevice_t)


def write_handle(argument: Any, address: int) -> None:
    """Write a handle through a byref argument."""
    ctypes.c_void_p.from_buffer(target(argument)).value = address


def read_handle(handle: Any) -> int:
    """Return the address in a handle, 0 for null and for what is no handle."""
    try:
        return ctypes.cast(handle, ctypes.c_void_p).value or 0
    except (ctypes.ArgumentError, TypeError):
        return 0


def address_of_part(client: Client, kind: Kind, number: int) -> int:
    """Return the address that a handle of a part of a GPU carries in this initialisation."""
    return (client.generation * _MAX_PARTS + number) * _HANDLE_STEP + kind


def _part_number(client: Client, handle: Any, kind: Kind) -> int | None:
    rest, its_kind = divmod(read_handle(handle), _HANDLE_STEP)
    generation, number = divmod(rest, _MAX_PARTS)
    return number if its_kind == kind and generation == client.generation else None


def instance_of(client: Client, handle: Any) -> tuple[GpuState, GpuInstance] | None:
    """Return what a GPU instance's handle means; None for others, and once it was destroyed."""
    number = _part_number(client, handle, Kind.GPU_INSTANCE)
    for gpu in client.gpus:
        for instance in gpu.mig.instances.values():
            if instance.number == number:
                return gpu, instance
    return None


def compute_of(
    client: Client, handle: Any, kind: Kind
) -> tuple[GpuState, GpuInstance, ComputeInstance] | None:
    """Return what the handle of a compute instance, or of its MIG device, means; None as above."""
    number = _part_number(client, handle, kind)
    for gpu in client.gpus:
        for instance, compute in gpu.mig.devices():
            if compute.number == number:
                return gpu, instance, compute
    return None


def gpu_beneath(client: Client, handle: Any) -> int | None:
    """Return the position of the GPU that a handle is, or is a part of; None if it is void."""
    found = (
        compute_of(client, handle, Kind.MIG_DEVICE)
        or instance_of(client, handle)
        or compute_of(client, handle, Kind.COMPUTE_INSTANCE)
    )
    return position_of(client, handle) if found is None else found[0].position


def position_of(client: Client, handle: Any) -> int | None:
    """Return which GPU a handle of this initialisation means, None if none."""
    rest, kind = divmod(read_handle(handle), _HANDLE_STEP)
    generation, rest = divmod(rest, _MAX_HANDLES)
    if kind != Kind.GPU:
        return None
    if generation != client.generation or not 1 <= rest <= len(client.gpus):
        return None
    return rest - 1


def gpu_of(client: Client, handle: Any, function: str = "") -> GpuState:
    """Return a handle's GPU if it answers `function`.

    Ends the call with INVALID_ARGUMENT for a handle that is void, GPU_IS_LOST for a lost GPU.
    """
    position = position_of(client, handle)
    if position is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    gpu = client.gpus[position]
    if gpu.lost and function not in gpu.answers:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    return gpu


def check_version(struct: Any) -> None:
    """End the call with ARGUMENT_VERSION_MISMATCH unless the word fits the struct's size."""
    if struct.version & 0xFFFFFF != ctypes.sizeof(struct):
        raise fail(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
