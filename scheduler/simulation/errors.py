"""What can go wrong in a replay.

SchedulerError(Exception)
└── ReplayError(ValueError)   what was asked for cannot be replayed: an unknown policy, no GPU
"""

from __future__ import annotations

from scheduler.errors import SchedulerError


class ReplayError(SchedulerError, ValueError):
    """A replay that cannot be begun."""
