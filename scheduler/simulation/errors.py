"""What can go wrong in a replay.

SchedulerError(Exception)
├── TraceError(ValueError)    a node or pod list cannot be read: file, line, column and problem
└── ReplayError(ValueError)   what was asked for cannot be replayed: an unknown policy, no GPU
"""

from __future__ import annotations

from scheduler.errors import SchedulerError


class TraceError(SchedulerError, ValueError):
    """A list cannot be used as it is written; `line` counts from 1, 0 means the whole file."""

    def __init__(self, source: str, line: int, column: str, problem: str) -> None:
        place = ":".join(part for part in (source, str(line or ""), column) if part)
        super().__init__(f"{place}: {problem}")
        self.source = source
        self.line = line
        self.column = column
        self.problem = problem


class ReplayError(SchedulerError, ValueError):
    """A replay that cannot be begun."""
