"""Event sets: waiting for what happens to GPUs."""

from __future__ import annotations

import time
from typing import Any, Final

import pynvml

from mock_nvml.client import Client, EventSetState
from mock_nvml.library.arguments import (
    address_of,
    fail,
    gpu_of,
    make_handle,
    number,
    read_handle,
    target,
    write,
    write_handle,
)
from mock_nvml.state import EventState, GpuState

_FOR_EVER: Final = 0xFFFFFFFF


def _supported(gpu: GpuState) -> int:
    types: int = (
        pynvml.nvmlEventTypeXidCriticalError
        | pynvml.nvmlEventTypePState
        | pynvml.nvmlEventTypeClock
    )
    if "ecc" in gpu.product.features:
        types |= pynvml.nvmlEventTypeSingleBitEccError | pynvml.nvmlEventTypeDoubleBitEccError
    if gpu.mig.geometry is not None:
        types |= pynvml.nvmlEventMigConfigChange
    return types


def nvmlDeviceGetSupportedEventTypes(client: Client, handle: Any, types: Any) -> None:
    """Write which events the GPU can be watched for."""
    write(types, _supported(gpu_of(client, handle, "nvmlDeviceGetSupportedEventTypes")))


def nvmlEventSetCreate(client: Client, event_set: Any) -> None:
    """Write the handle of a new event set."""
    write_handle(event_set, client.make_event_set())


def _event_set(client: Client, handle: Any) -> EventSetState:
    found = client.event_sets.get(read_handle(handle))
    if found is None:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return found


def nvmlDeviceRegisterEvents(client: Client, handle: Any, types: Any, event_set: Any) -> None:
    """Watch a GPU; with an event type that it lacks nothing is registered at all."""
    gpu = gpu_of(client, handle, "nvmlDeviceRegisterEvents")
    found = _event_set(client, event_set)
    mask = number(types)
    if not mask:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if mask & ~_supported(gpu):
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    found.masks[gpu.position] = found.masks.get(gpu.position, 0) | mask


def nvmlEventSetFree(client: Client, event_set: Any) -> None:
    """Void an event set; whoever waits on it is sent home."""
    _event_set(client, event_set)
    del client.event_sets[read_handle(event_set)]
    client.changed.notify_all()


def nvmlEventSetWait_v2(client: Client, event_set: Any, data: Any, timeout: Any) -> None:
    """Wait for the next event, at most `timeout` milliseconds.

    With a lost GPU in the set, GPU_IS_LOST comes at once and for ever, as on hardware: who waits
    in a loop must slow down by himself.
    """
    event = _wait(client, event_set, number(timeout))
    struct = target(data)
    struct.device = make_handle(address_of(client, event.position))
    struct.eventType = event.type
    struct.eventData = event.data
    struct.gpuInstanceId = event.gpu_instance
    struct.computeInstanceId = event.compute_instance


def _wait(client: Client, event_set: Any, timeout: int) -> EventState:
    waiting = _event_set(client, event_set)
    deadline = None if timeout == _FOR_EVER else time.monotonic() + timeout / 1000
    while True:
        if waiting not in client.event_sets.values():
            raise fail(pynvml.NVML_ERROR_UNINITIALIZED)
        if waiting.pending:
            return waiting.pending.popleft()
        if any(client.gpus[position].lost for position in waiting.masks):
            raise fail(pynvml.NVML_ERROR_GPU_IS_LOST)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise fail(pynvml.NVML_ERROR_TIMEOUT)
        client.changed.wait(left)  # gives the lock away meanwhile
