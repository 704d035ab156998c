"""What can go wrong with a list."""

from __future__ import annotations


class TraceError(ValueError):
    """A list cannot be used as it is written; `line` counts from 1, 0 means the whole file."""

    def __init__(self, source: str, line: int, column: str, problem: str) -> None:
        place = ":".join(part for part in (source, str(line or ""), column) if part)
        super().__init__(f"{place}: {problem}")
        self.source = source
        self.line = line
        self.column = column
        self.problem = problem
