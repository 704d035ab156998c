"""What can be wrong with a mock.

MockError(Exception)
├── BuildError              the shared library cannot be compiled
├── FaultError(ValueError)  a scripted fault breaks the format: source and place
└── NvmlStatusError         a C function ends with a code of NVML
"""

from __future__ import annotations


class MockError(Exception):
    """The root of this package's errors."""


class BuildError(MockError):
    """The shared library cannot be compiled: no compiler, or its complaint."""


class FaultError(MockError, ValueError):
    """A fault is malformed. `source` names the script, `place` the entry (``[3].kind``)."""

    def __init__(self, source: str, place: str, problem: str) -> None:
        where = f"{source}: {place}" if place else source
        super().__init__(f"{where}: {problem}")
        self.source = source
        self.place = place
        self.problem = problem


class NvmlStatusError(MockError):
    """A C function ends with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
