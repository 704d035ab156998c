"""Choosing where no table fits: classes of more than 16 GPUs.

A bounded search by the same order: from every possible start a set is grown greedily, the best
ones are improved by swapping single members, all within a budget of evaluated sets.
"""

from __future__ import annotations

from topology.choice import Choice, Request
from topology.profiles import Profile
from topology.tables import Tables


def choose(tables: Tables, profile: Profile, request: Request) -> Choice:
    """Return the best set found."""
    raise NotImplementedError
