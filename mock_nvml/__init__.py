"""A machine described by a file that answers like NVML, with faults on a script.

It stands behind unmodified pynvml: `MockNvml(machine).install()`; `write_sysfs` writes the /sys
that belongs to it.
"""

from __future__ import annotations

from mock_nvml.errors import FaultError, MockError
from mock_nvml.machine import MockNvml
from mock_nvml.player import FaultPlayer
from mock_nvml.proc import write_proc
from mock_nvml.state import gpu_uuid
from mock_nvml.sysfs import write_sysfs

__all__ = [
    "FaultError",
    "FaultPlayer",
    "MockError",
    "MockNvml",
    "gpu_uuid",
    "write_proc",
    "write_sysfs",
]
