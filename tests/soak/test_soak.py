"""A short soak: the long one is `python -m tests.soak.run`."""

from __future__ import annotations

from tests.soak.run import soak


def test_a_short_soak_leaves_nothing_behind() -> None:
    """No GPU given twice, no book that disagrees, no thread and no file more than before."""
    outcome = soak(cycles=60, seed=7)
    assert outcome.problems() == []
    assert outcome.pods_run > 40
    assert sum(outcome.faults.values()) > 0
