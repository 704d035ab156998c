"""Reading and writing the ctypes arguments that pynvml hands to a C function."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, Final

import pynvml

from mock_nvml.state import GpuState, MachineState, NvmlStatusError

_HANDLE_STEP: Final = 0x100
_MAX_HANDLES: Final = 0x1000


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


def address_of(state: MachineState, position: int) -> int:
    """Return the address that a handle of a GPU carries in this initialisation."""
    return (state.generation * _MAX_HANDLES + position + 1) * _HANDLE_STEP


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


def position_of(state: MachineState, handle: Any) -> int | None:
    """Return which GPU a handle of this initialisation means, None if none."""
    generation, rest = divmod(read_handle(handle) // _HANDLE_STEP, _MAX_HANDLES)
    if generation != state.generation or not 1 <= rest <= len(state.gpus):
        return None
    return rest - 1


def gpu_of(state: MachineState, handle: Any, function: str = "") -> GpuState:
    """Return a handle's GPU if it answers `function`.

    Ends the call with INVALID_ARGUMENT for a handle that is void, GPU_IS_LOST for a lost GPU.
    """
    position = position_of(state, handle)
    if position is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    gpu = state.gpus[position]
    if gpu.lost and function not in gpu.answers:
        raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
    return gpu


def check_version(struct: Any) -> None:
    """End the call with ARGUMENT_VERSION_MISMATCH unless the word fits the struct's size."""
    if struct.version & 0xFFFFFF != ctypes.sizeof(struct):
        raise fail(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
