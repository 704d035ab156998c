"""Measures over time in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dashboard.history import WINDOWS, History, Window


def test_values_of_one_step_become_their_mean() -> None:
    """By the step's beginning; what is not known does not count."""
    window = Window(10, 5)
    for at, value in ((100, 1.0), (104, 3.0), (109, None), (110, None)):
        window.add(at, (value,))
    assert window.points(0) == ((100, 2.0), (110, None))


def test_the_oldest_go_first() -> None:
    """A window keeps so many steps."""
    window = Window(1, 3)
    for at in range(10):
        window.add(at, (float(at),))
    assert window.points(0) == ((7, 7.0), (8, 8.0), (9, 9.0))


def test_a_clock_that_is_set_back_is_followed() -> None:
    """The line goes on from there: time on a chart never runs backwards."""
    window = Window(1, 10)
    for at in (1, 2, 3, 2, 3):
        window.add(at, (float(at),))
    assert [at for at, _ in window.points(0)] == [1, 2, 3]


@given(st.lists(st.tuples(st.floats(0, 1e9), st.none() | st.floats(0, 100)), max_size=200))
def test_every_window_stays_in_its_bounds(moments: list[tuple[float, float | None]]) -> None:
    """Whatever comes: few enough steps, in the order of time, means among the values."""
    history = History(["x"])
    for at, value in moments:
        history.add(at, (value,))
    known = [value for _, value in moments if value is not None]
    for name, (step, keep) in WINDOWS.items():
        points = history.points("x", name)
        assert len(points) <= keep
        times = [at for at, _ in points]
        assert times == sorted(set(times))
        assert all(at % step == pytest.approx(0, abs=1e-3) for at in times)
        assert all(
            min(known) - 1e-6 <= value <= max(known) + 1e-6
            for _, value in points
            if value is not None
        )


def test_each_measure_wants_its_value() -> None:
    """One too many or too few is a mistake of the caller."""
    with pytest.raises(ValueError, match="1 values for 2 measures"):
        History(["x", "y"]).add(0, (1.0,))
