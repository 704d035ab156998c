"""One call of unmodified pynvml: its errors end here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pynvml

from deviceplugin.errors import NvmlError


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of pynvml; raises NvmlError with NVML's code."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        # str() of a code that pynvml has no text for calls into the library: take the number.
        code = int(error.value)
        raise NvmlError(code, _name_of(code), function.__name__) from None


def _name_of(code: int) -> str:
    for name in _ERROR_NAMES:
        if getattr(pynvml, name) == code:
            return name.removeprefix("NVML_ERROR_")
    return "UNLISTED"


_ERROR_NAMES: Final = tuple(name for name in dir(pynvml) if name.startswith("NVML_ERROR_"))


def text(value: Any) -> str:
    """Return what pynvml gives as bytes or str."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
