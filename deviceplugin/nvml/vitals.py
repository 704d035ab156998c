"""How a GPU fares, through pynvml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pynvml

from deviceplugin.errors import NvmlError
from deviceplugin.nvml.call import call
from deviceplugin.nvml.interface import FATAL, Code, Device, Vitals
from topology.links import MAX_NVLINKS

_HOT: Final = (
    pynvml.nvmlClocksEventReasonHwThermalSlowdown | pynvml.nvmlClocksEventReasonSwThermalSlowdown
)


def read_vitals(device: Device) -> Vitals:
    """Return how a GPU fares; raises NvmlError only if it is lost.

    Products differ in what they support, and drivers in what they may be asked: the rest is None.
    """
    _, _, pending, failed = _ask(pynvml.nvmlDeviceGetRemappedRows, device) or (None,) * 4
    reasons = _ask(_clock_reasons, device)
    return Vitals(
        celsius=_ask(pynvml.nvmlDeviceGetTemperature, device, pynvml.NVML_TEMPERATURE_GPU),
        hot=None if reasons is None else bool(reasons & _HOT),
        double_bit_errors=_ask(
            pynvml.nvmlDeviceGetTotalEccErrors,
            device,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        remap_pending=None if pending is None else bool(pending),
        remap_failed=None if failed is None else bool(failed),
        links=_count_links(device),
    )


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(question, *arguments)
    except NvmlError as error:
        if error.code in FATAL:
            raise
        return None


def _clock_reasons(device: Device) -> Any:
    """Ask by the new name, then by the one that drivers before 535 have."""
    try:
        return pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)
    except pynvml.NVMLError_FunctionNotFound:
        return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)


def _count_links(device: Device) -> int | None:
    """Return how many NVLinks are up, None for a GPU without any."""
    up = 0
    for number in range(MAX_NVLINKS):
        try:
            up += bool(call(pynvml.nvmlDeviceGetNvLinkState, device, number))
        except NvmlError as error:
            if error.code in FATAL:
                raise
            if error.code == Code.INVALID_ARGUMENT:
                break
            if number == 0:
                return None
    return up
