"""Initialisation, versions, error texts."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from mock_nvml.client import Client
from mock_nvml.library.arguments import fail, number, write, write_text

_CUDA_VERSION: Final = 13000
"""major * 1000 + minor * 10"""


def nvmlInitWithFlags(client: Client, flags: Any) -> None:
    """Count a user of the library; each needs a shutdown of its own."""
    if number(flags) & ~7:
        raise fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    client.initialise()


def nvmlInit_v2(client: Client) -> None:
    """Count a user of the library."""
    client.initialise()


def nvmlShutdown(client: Client) -> None:
    """Uncount a user; the last one really shuts down."""
    client.shut_down()


def nvmlErrorString(client: Client, code: Any) -> bytes:
    """Return words for a code."""
    names = (
        name.removeprefix("NVML_ERROR_").replace("_", " ").capitalize()
        for name in dir(pynvml)
        if name.startswith("NVML_ERROR_") and getattr(pynvml, name) == number(code)
    )
    return next(names, "Success" if number(code) == 0 else "Unknown Error").encode()


def nvmlSystemGetDriverVersion(client: Client, buffer: Any, size: Any) -> None:
    """Write the driver's version."""
    write_text(buffer, size, client.state.driver.version)


def nvmlSystemGetNVMLVersion(client: Client, buffer: Any, size: Any) -> None:
    """Write the library's version."""
    write_text(buffer, size, f"{_CUDA_VERSION // 1000}.{client.state.driver.version}")


def nvmlSystemGetCudaDriverVersion(client: Client, version: Any) -> None:
    """Write the CUDA version of the driver."""
    write(version, _CUDA_VERSION)


nvmlSystemGetCudaDriverVersion_v2 = nvmlSystemGetCudaDriverVersion
