"""How the GPUs fare: memory, load, errors."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import (
    Kind,
    check_version,
    compute_of,
    fail,
    gpu_of,
    number,
    target,
    write,
)
from mock_nvml.mig_profiles import instance_memory_mib
from mock_nvml.state import GpuState

_RESERVED_MIB: Final = 512
_IDLE_MILLIWATTS: Final = 68_000
_SLOWDOWN_CELSIUS: Final = 87
_SHUTDOWN_CELSIUS: Final = 92
_IDLE_MHZ: Final = 345
_AMPERE: Final = 7


def _with_ecc(client: Client, handle: Any, function: str) -> GpuState:
    gpu = gpu_of(client, handle, function)
    if "ecc" not in gpu.product.features:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return gpu


def nvmlDeviceGetMemoryInfo(client: Client, handle: Any, memory: Any) -> None:
    """Write the memory in bytes; nothing runs, so only the driver's share is in use.

    A MIG device has its own share of it.
    """
    struct = target(memory)
    part = compute_of(client, handle, Kind.MIG_DEVICE)
    if part is not None:
        owner, instance, _ = part
        mib = instance_memory_mib(owner.product, owner.mig.known_geometry(), instance.profile)
        struct.total = struct.free = mib << 20
        struct.used = 0
        return
    gpu = gpu_of(client, handle, "nvmlDeviceGetMemoryInfo")
    struct.total = gpu.product.memory_mib << 20
    struct.used = _RESERVED_MIB << 20
    struct.free = struct.total - struct.used


def nvmlDeviceGetMemoryInfo_v2(client: Client, handle: Any, memory: Any) -> None:
    """Write the memory in bytes, the driver's share apart."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetMemoryInfo_v2")
    struct = target(memory)
    check_version(struct)
    struct.total = gpu.product.memory_mib << 20
    struct.reserved = _RESERVED_MIB << 20
    struct.used = 0
    struct.free = struct.total - struct.reserved


def nvmlDeviceGetBAR1MemoryInfo(client: Client, handle: Any, memory: Any) -> None:
    """Write the window of memory that the CPU can address."""
    gpu_of(client, handle, "nvmlDeviceGetBAR1MemoryInfo")
    struct = target(memory)
    struct.bar1Total = 128 << 30
    struct.bar1Used = 1 << 20
    struct.bar1Free = struct.bar1Total - struct.bar1Used


def nvmlDeviceGetUtilizationRates(client: Client, handle: Any, rates: Any) -> None:
    """Write that the GPU is idle; NOT_SUPPORTED in MIG mode."""
    if gpu_of(client, handle, "nvmlDeviceGetUtilizationRates").mig.enabled:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    struct = target(rates)
    struct.gpu = struct.memory = 0


def nvmlDeviceGetTemperature(client: Client, handle: Any, sensor: Any, temperature: Any) -> None:
    """Write the temperature in degrees Celsius."""
    write(temperature, gpu_of(client, handle, "nvmlDeviceGetTemperature").celsius)


def nvmlDeviceGetTemperatureThreshold(
    client: Client, handle: Any, threshold: Any, temperature: Any
) -> None:
    """Write where the clocks are held down, or where the GPU turns itself off."""
    gpu_of(client, handle, "nvmlDeviceGetTemperatureThreshold")
    known = {
        pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN: _SHUTDOWN_CELSIUS,
        pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: _SLOWDOWN_CELSIUS,
    }
    if number(threshold) not in known:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write(temperature, known[number(threshold)])


def nvmlDeviceGetCurrentClocksEventReasons(client: Client, handle: Any, reasons: Any) -> None:
    """Write why the clocks are what they are: idle, or held down by heat."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetCurrentClocksEventReasons")
    hot = gpu.celsius >= _SLOWDOWN_CELSIUS
    write(
        reasons,
        pynvml.nvmlClocksEventReasonHwThermalSlowdown
        if hot
        else pynvml.nvmlClocksEventReasonGpuIdle,
    )


nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons


def nvmlDeviceGetPowerUsage(client: Client, handle: Any, milliwatts: Any) -> None:
    """Write an idle GPU's power."""
    gpu_of(client, handle, "nvmlDeviceGetPowerUsage")
    write(milliwatts, _IDLE_MILLIWATTS)


def nvmlDeviceGetClockInfo(client: Client, handle: Any, kind: Any, megahertz: Any) -> None:
    """Write an idle GPU's clock."""
    gpu_of(client, handle, "nvmlDeviceGetClockInfo")
    write(megahertz, _IDLE_MHZ)


def nvmlDeviceGetEccMode(client: Client, handle: Any, current: Any, pending: Any) -> None:
    """Write that ECC is on; most GeForce products have none."""
    _with_ecc(client, handle, "nvmlDeviceGetEccMode")
    write(current, pynvml.NVML_FEATURE_ENABLED)
    write(pending, pynvml.NVML_FEATURE_ENABLED)


def nvmlDeviceGetTotalEccErrors(
    client: Client, handle: Any, kind: Any, counter: Any, count: Any
) -> None:
    """Write how many memory errors there were; both counters count from the same moment."""
    gpu = _with_ecc(client, handle, "nvmlDeviceGetTotalEccErrors")
    if number(kind) == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED:
        write(count, gpu.single_bit_errors)
    else:
        write(count, gpu.double_bit_errors)


def nvmlDeviceGetRemappedRows(
    client: Client, handle: Any, corrected: Any, uncorrected: Any, pending: Any, failed: Any
) -> None:
    """Write the remapped rows: each double-bit error took one.

    NOT_SUPPORTED on Turing and older, which retire pages, and while there are MIG instances.
    """
    gpu = _with_ecc(client, handle, "nvmlDeviceGetRemappedRows")
    if gpu.product.architecture < _AMPERE or gpu.mig.instances:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write(corrected, 0)
    write(uncorrected, gpu.double_bit_errors)
    write(pending, int(gpu.remap_pending or gpu.double_bit_errors > 0))
    write(failed, int(gpu.remap_failed))


def nvmlDeviceGetRowRemapperHistogram(client: Client, handle: Any, histogram: Any) -> None:
    """Write that all memory banks have their spare rows."""
    gpu = _with_ecc(client, handle, "nvmlDeviceGetRowRemapperHistogram")
    if gpu.product.architecture < _AMPERE:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    target(histogram).max = 640


def nvmlDeviceGetRetiredPages(
    client: Client, handle: Any, cause: Any, count: Any, pages: Any
) -> None:
    """Write no retired pages; Ampere and later remap rows."""
    if _with_ecc(client, handle, "nvmlDeviceGetRetiredPages").product.architecture >= _AMPERE:
        raise fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
    write(count, 0)


def nvmlDeviceGetComputeRunningProcesses_v3(
    client: Client, handle: Any, count: Any, processes: Any
) -> None:
    """Write no processes: an empty list is a success at the first call."""
    gpu_of(client, handle, "nvmlDeviceGetComputeRunningProcesses_v3")
    write(count, 0)


def nvmlDeviceGetFieldValues(client: Client, handle: Any, count: Any, values: Any) -> None:
    """Fill the fields that are known; each other one says NOT_SUPPORTED for itself."""
    gpu = gpu_of(client, handle, "nvmlDeviceGetFieldValues")
    known = {
        pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT: len(gpu.links),
        pynvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL: gpu.single_bit_errors,
        pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL: gpu.double_bit_errors,
        pynvml.NVML_FI_DEV_ECC_CURRENT: int("ecc" in gpu.product.features),
    }
    array = target(values)
    for at in range(number(count)):
        value = known.get(array[at].fieldId)
        if value is None:
            array[at].nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
        else:
            array[at].nvmlReturn = pynvml.NVML_SUCCESS
            array[at].valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            array[at].value.ullVal = value
