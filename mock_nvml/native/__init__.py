"""The mock as a real shared library, for processes that are not ours.

`build` compiles a libnvidia-ml.so.1 that knows nothing of machines: it hands each call to a
`NativeServer` over a Unix socket that lies beside it. So the state and every answer stay in one
place, in Python.
"""

from __future__ import annotations

from mock_nvml.native.build import LIBRARY, SOCKET, build
from mock_nvml.native.server import NativeServer

__all__ = ["LIBRARY", "SOCKET", "NativeServer", "build"]
