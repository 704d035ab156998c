"""What can go wrong when load is asked for.

SchedulerError(Exception)
└── SourceError         a source gave nothing that can be used; `outcome` is the metric's label
    └── AnswerError     it answered, but not as its API promises
"""

from __future__ import annotations

from typing import Final, Literal

from scheduler.errors import SchedulerError

Outcome = Literal[
    "ok", "credentials", "empty", "http", "query", "timeout", "tls", "too_large", "unreachable",
    "unreadable",
]  # fmt: skip

TEXT_LIMIT: Final = 200
"""Characters of a server's text that are kept: a log line must not carry whole pages."""


class SourceError(SchedulerError):
    """A source gave nothing that can be used."""

    def __init__(self, outcome: Outcome, problem: str) -> None:
        super().__init__(problem)
        self.outcome: Outcome = outcome


class AnswerError(SourceError):
    """An answer that does not read."""

    def __init__(self, problem: str) -> None:
        super().__init__("unreadable", problem)


def cut(text: str) -> str:
    """Return a server's text on one line, short enough for a log, and without odd bytes."""
    line = " ".join(text.split()).encode(errors="replace").decode()
    return line if len(line) <= TEXT_LIMIT else f"{line[:TEXT_LIMIT]}..."
