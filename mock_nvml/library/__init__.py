"""The object that stands behind unmodified pynvml in place of libnvidia-ml.so.1.

Its attributes are named like the C symbols and are callables that take the ctypes arguments as
pynvml builds them and return a status. A symbol that it lacks is an AttributeError, which pynvml
takes for an old driver's library.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import pynvml

from mock_nvml.client import Client
from mock_nvml.errors import NvmlStatusError
from mock_nvml.library import (
    devices,
    events,
    health,
    instances,
    links,
    mig,
    placement,
    system,
)
from mock_nvml.library.arguments import gpu_beneath

_MODULES: Final[tuple[ModuleType, ...]] = (
    system,
    devices,
    mig,
    instances,
    placement,
    links,
    health,
    events,
)

_ANY_TIME: Final = frozenset(
    ("nvmlInitWithFlags", "nvmlInit_v2", "nvmlShutdown", "nvmlErrorString")
)
"""Functions that work before initialisation and after shutdown."""


class Function:
    """One C function of the library."""

    def __init__(self, name: str, body: Callable[..., Any], client: Client) -> None:
        self.restype: Any = None
        self._name = name
        self._body = body
        self._client = client

    def __call__(self, *arguments: Any) -> Any:
        """Run the function; return its status (the text itself for nvmlErrorString)."""
        client = self._client
        with client.changed:
            about = gpu_beneath(client, arguments[0]) if arguments else None
            delay, code, recovered = client.state.call_faults(self._name, about)
        if delay:
            recovered.wait(delay)  # not under the lock: others go on
        if code:
            return code
        with client.changed:
            try:
                if self._name not in _ANY_TIME:
                    client.check()
                result = self._body(client, *arguments)
            except NvmlStatusError as status:
                return status.code
        return pynvml.NVML_SUCCESS if result is None else result


class Library:
    """A machine's library in one process. `missing` names symbols that it shall lack."""

    def __init__(self, client: Client, missing: frozenset[str] = frozenset()) -> None:
        self._functions = {
            name: Function(name, body, client)
            for module in _MODULES
            for name, body in vars(module).items()
            if name.startswith("nvml") and name not in missing
        }

    def __getattr__(self, name: str) -> Function:
        """Return a C function."""
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(f"undefined symbol: {name}") from None
