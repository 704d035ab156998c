"""Everything that a program may ask a machine through pynvml, as one JSON text.

Run as a script it asks whatever library pynvml finds by itself; `collect` asks in this process.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

import pynvml


def collect() -> dict[str, Any]:
    """Initialise, ask, shut down; an error is an answer too: its number."""
    pynvml.nvmlInit()
    try:
        count = pynvml.nvmlDeviceGetCount()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(count)]
        return {
            "system": {
                "driver": pynvml.nvmlSystemGetDriverVersion(),
                "nvml": pynvml.nvmlSystemGetNVMLVersion(),
                "cuda": pynvml.nvmlSystemGetCudaDriverVersion(),
                "near cpu 25": _indexes(pynvml.nvmlSystemGetTopologyGpuSet, 25),
            },
            "gpus": [_gpu(gpu) for gpu in gpus],
            "pairs": [[_pair(a, b) for b in gpus if b is not a] for a in gpus],
        }
    finally:
        pynvml.nvmlShutdown()


def _ask(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return _plain(call(*arguments))
    except pynvml.NVMLError as error:
        return f"error {error.value}"


def _plain(value: Any) -> Any:
    if isinstance(value, ctypes.Structure):
        return {
            name: _plain(getattr(value, name))
            for name, *_ in value._fields_
            if not hasattr(getattr(value, name), "contents")  # handles differ by process
        }
    if isinstance(value, ctypes.Array | list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return getattr(value, "value", value)


def _indexes(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return [pynvml.nvmlDeviceGetIndex(one) for one in call(*arguments)]
    except pynvml.NVMLError as error:
        return f"error {error.value}"


_SIMPLE = (
    "UUID Name Serial PciInfo MinorNumber Index BoardId Architecture Brand PersistenceMode"
    " ComputeMode CudaComputeCapability MaxPcieLinkGeneration MaxPcieLinkWidth MemoryInfo"
    " BAR1MemoryInfo UtilizationRates PowerUsage EccMode RemappedRows RowRemapperHistogram"
    " ComputeRunningProcesses NumaNodeId SupportedEventTypes CurrentClocksEventReasons MigMode"
    " MaxMigDeviceCount Attributes"
)


def _gpu(gpu: Any) -> dict[str, Any]:
    found = {name: _ask(getattr(pynvml, f"nvmlDeviceGet{name}"), gpu) for name in _SIMPLE.split()}
    fabric = pynvml.c_nvmlGpuFabricInfo_v3_t()
    fields = [pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT, pynvml.NVML_FI_DEV_POWER_INSTANT]
    found |= {
        "memory v2": _ask(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2),
        "temperature": _ask(pynvml.nvmlDeviceGetTemperature, gpu, 0),
        "slowdown": _ask(pynvml.nvmlDeviceGetTemperatureThreshold, gpu, 1),
        "clock": _ask(pynvml.nvmlDeviceGetClockInfo, gpu, 0),
        "ecc": [_ask(pynvml.nvmlDeviceGetTotalEccErrors, gpu, kind, 0) for kind in (0, 1)],
        "retired": _ask(pynvml.nvmlDeviceGetRetiredPages, gpu, 0),
        "cpus": _ask(pynvml.nvmlDeviceGetCpuAffinity, gpu, 4),
        "numa": _ask(pynvml.nvmlDeviceGetMemoryAffinity, gpu, 2, 0),
        "near": [_indexes(pynvml.nvmlDeviceGetTopologyNearestGpus, gpu, at) for at in (10, 50)],
        "fabric": [
            _ask(pynvml.nvmlDeviceGetGpuFabricInfoV, gpu, ctypes.byref(fabric)),
            _plain(fabric),
        ],
        "fields": [
            [one.nvmlReturn, one.value.ullVal]
            for one in pynvml.nvmlDeviceGetFieldValues(gpu, fields)
        ],
        "links": [_link(gpu, at) for at in range(19)],
        "profiles": [
            _ask(pynvml.nvmlDeviceGetGpuInstanceProfileInfo, gpu, key) for key in range(10)
        ],
        "places": [_places(gpu, number) for number in (0, 14, 19)],
        "mig": [_mig(gpu, at) for at in range(8)],
    }
    return found


def _link(gpu: Any, at: int) -> list[Any]:
    return [
        _ask(pynvml.nvmlDeviceGetNvLinkState, gpu, at),
        _ask(pynvml.nvmlDeviceGetNvLinkVersion, gpu, at),
        _ask(pynvml.nvmlDeviceGetNvLinkCapability, gpu, at, 0),
        _ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu, at),
        _ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, gpu, at),
    ]


def _pair(first: Any, second: Any) -> list[Any]:
    level = _ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, first, second)
    return [level, *(_ask(pynvml.nvmlDeviceGetP2PStatus, first, second, at) for at in range(4))]


def _places(gpu: Any, number: int) -> Any:
    count = ctypes.c_uint()
    call = pynvml.nvmlDeviceGetGpuInstancePossiblePlacements
    counted = _ask(call, gpu, number, None, ctypes.byref(count))
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    return [counted, _ask(call, gpu, number, places, ctypes.byref(count)), _plain(places)]


def _mig(gpu: Any, at: int) -> Any:
    try:
        device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, at)
    except pynvml.NVMLError as error:
        return f"error {error.value}"
    names = "UUID Name Attributes GpuInstanceId ComputeInstanceId MemoryInfo Index"
    found = {name: _ask(getattr(pynvml, f"nvmlDeviceGet{name}"), device) for name in names.split()}
    instance = pynvml.nvmlDeviceGetGpuInstanceById(gpu, found["GpuInstanceId"])
    parts = (pynvml.c_nvmlComputeInstance_t * 8)()
    count = ctypes.c_uint()
    number = found["Attributes"]["computeInstanceSliceCount"]
    key = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}[number]
    pynvml.nvmlGpuInstanceGetComputeInstances(instance, key, parts, ctypes.byref(count))
    found["instance"] = _plain(pynvml.nvmlGpuInstanceGetInfo(instance))
    found["parts"] = [
        _plain(pynvml.nvmlComputeInstanceGetInfo(parts[one])) for one in range(count.value)
    ]
    return found


if __name__ == "__main__":
    json.dump(collect(), sys.stdout)
