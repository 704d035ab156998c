"""How near GPUs are to each other, to CPUs and to memory."""

from __future__ import annotations

from typing import Any

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import (
    address_of,
    fail,
    gpu_of,
    make_handle,
    number,
    write,
    write_mask,
)
from mock_nvml.state import GpuState
from topology.cpulist import parse_list
from topology.links import NVML_OF_LEVEL


def _level(client: Client, first: GpuState, second: GpuState) -> int:
    return NVML_OF_LEVEL[client.layout.tree.levels[first.position][second.position]]


def nvmlDeviceGetTopologyCommonAncestor(
    client: Client, first: Any, second: Any, level: Any
) -> None:
    """Write the PCIe level of two GPUs."""
    name = "nvmlDeviceGetTopologyCommonAncestor"
    one, other = gpu_of(client, first, name), gpu_of(client, second, name)
    if one is other:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    write(level, _level(client, one, other))


def _fill(client: Client, found: list[GpuState], count: Any, handles: Any) -> None:
    """Write a list in two calls: first only how many, which is a success too."""
    if handles is not None:
        if number(count._obj) < len(found):  # noqa: SLF001 - what byref refers to
            raise fail(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for at, gpu in enumerate(found):
            handles[at] = make_handle(address_of(client, gpu.position))
    write(count, len(found))


def nvmlDeviceGetTopologyNearestGpus(
    client: Client, handle: Any, level: Any, count: Any, handles: Any
) -> None:
    """Write the GPUs within a level."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetTopologyNearestGpus")
    others = (client.gpus[position] for position in client.enumerated if position != gpu.position)
    near = [
        other for other in others if not other.lost and _level(client, gpu, other) <= number(level)
    ]
    _fill(client, near, count, handles)


def nvmlSystemGetTopologyGpuSet(client: Client, cpu: Any, count: Any, handles: Any) -> None:
    """Write the GPUs near a CPU."""
    near = [
        client.gpus[position]
        for position in client.enumerated
        if number(cpu) in parse_list(client.gpus[position].told.cpus or "")
    ]
    _fill(client, near, count, handles)


def nvmlDeviceGetP2PStatus(
    client: Client, first: Any, second: Any, index: Any, status: Any
) -> None:
    """Write whether two GPUs reach each other: over NVLink, or over PCIe for other indexes."""
    name = "nvmlDeviceGetP2PStatus"
    one, other = gpu_of(client, first, name), gpu_of(client, second, name)
    if one is other:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    linked = _share_nvlinks(client, one, other)
    if linked:
        write(status, pynvml.NVML_P2P_STATUS_OK)
    elif number(index) == pynvml.NVML_P2P_CAPS_INDEX_NVLINK:
        write(status, pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)
    elif "geforce" in one.product.features and not client.machine.p2p.upper().startswith("OK"):
        write(status, pynvml.NVML_P2P_STATUS_GPU_NOT_SUPPORTED)
    else:
        write(status, pynvml.NVML_P2P_STATUS_OK)


def _share_nvlinks(client: Client, one: GpuState, other: GpuState) -> bool:
    if not client.machine.nvlinks[one.position][other.position]:
        return False
    if client.machine.nvlink.nvswitch:
        return all(any(link.active for link in gpu.links) for gpu in (one, other))
    return any(
        link.active and link.peer is not None and link.peer[0] == other.position
        for link in one.links
    )


def nvmlDeviceGetCpuAffinity(client: Client, handle: Any, size: Any, mask: Any) -> None:
    """Write the near CPUs; where the description has none the driver is too old for it."""
    cpus = gpu_of(client, handle, "nvmlDeviceGetCpuAffinity").told.cpus
    if cpus is None:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write_mask(mask, size, parse_list(cpus))


def nvmlDeviceGetCpuAffinityWithinScope(
    client: Client, handle: Any, size: Any, mask: Any, scope: Any
) -> None:
    """Write the near CPUs; node and socket are not told apart."""
    if number(scope) not in (pynvml.NVML_AFFINITY_SCOPE_NODE, pynvml.NVML_AFFINITY_SCOPE_SOCKET):
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    nvmlDeviceGetCpuAffinity(client, handle, size, mask)


def nvmlDeviceGetMemoryAffinity(
    client: Client, handle: Any, size: Any, mask: Any, scope: Any
) -> None:
    """Write the near NUMA nodes; NOT_SUPPORTED where the description has none."""
    numa = gpu_of(client, handle, "nvmlDeviceGetMemoryAffinity").told.numa
    if number(scope) not in (pynvml.NVML_AFFINITY_SCOPE_NODE, pynvml.NVML_AFFINITY_SCOPE_SOCKET):
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if numa is None:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write_mask(mask, size, parse_list(numa))


def nvmlDeviceGetNumaNodeId(client: Client, handle: Any, node: Any) -> None:
    """Write the NUMA node that the GPU's own memory is (Grace boards only)."""
    own = gpu_of(client, handle, "nvmlDeviceGetNumaNodeId").told.gpu_numa_id
    if own is None:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write(node, own)
