"""Initialisation, versions, error texts."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from mock_nvml.library.arguments import fail, number, write, write_text
from mock_nvml.state import MachineState

DRIVER_VERSION: Final = "580.95.05"
_CUDA_VERSION: Final = 13000
"""major * 1000 + minor * 10"""


def nvmlInitWithFlags(state: MachineState, flags: Any) -> None:
    """Count a user of the library; each needs a shutdown of its own."""
    if number(flags) & ~7:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    state.initialise()


def nvmlInit_v2(state: MachineState) -> None:
    """Count a user of the library."""
    state.initialise()


def nvmlShutdown(state: MachineState) -> None:
    """Uncount a user; the last one really shuts down."""
    state.shut_down()


def nvmlErrorString(state: MachineState, code: Any) -> bytes:
    """Return words for a code."""
    names = (
        name.removeprefix("NVML_ERROR_").replace("_", " ").capitalize()
        for name in dir(pynvml)
        if name.startswith("NVML_ERROR_") and getattr(pynvml, name) == number(code)
    )
    return next(names, "Success" if number(code) == 0 else "Unknown Error").encode()


def nvmlSystemGetDriverVersion(state: MachineState, buffer: Any, size: Any) -> None:
    """Write the driver's version."""
    write_text(buffer, size, DRIVER_VERSION)


def nvmlSystemGetNVMLVersion(state: MachineState, buffer: Any, size: Any) -> None:
    """Write the library's version."""
    write_text(buffer, size, f"{_CUDA_VERSION // 1000}.{DRIVER_VERSION}")


def nvmlSystemGetCudaDriverVersion(state: MachineState, version: Any) -> None:
    """Write the CUDA version of the driver."""
    write(version, _CUDA_VERSION)


nvmlSystemGetCudaDriverVersion_v2 = nvmlSystemGetCudaDriverVersion
