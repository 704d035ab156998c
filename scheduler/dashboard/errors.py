"""What can go wrong with the dashboard.

ExplainError
└── CrowdedError    503: too many watch at a time
"""

from __future__ import annotations

from scheduler.explain.errors import ExplainError


class CrowdedError(ExplainError):
    """Too many watch."""

    status = 503

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} pages follow the cluster already; this one does not move")
