"""What can go wrong with the dashboard.

ExplainError
├── CrowdedError    503: too many watch at a time
└── StrangerError   421: asked for by a name that is not this machine's own
"""

from __future__ import annotations

from scheduler.explain.errors import ExplainError


class CrowdedError(ExplainError):
    """Too many watch."""

    status = 503

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} pages follow the cluster already; this one does not move")


class StrangerError(ExplainError):
    """Without a token, who is asked for by a foreign name may be the tool of a foreign page."""

    status = 421

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host {host[:100]!r}: without a token it is to be asked for by localhost or 127.0.0.1"
        )
