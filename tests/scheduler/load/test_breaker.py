"""The circuit breaker: a table of its steps, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.load.breaker import Breaker, Rules, admit, fail, succeed

RULES = Rules(failures=3, first_pause=10.0, last_pause=60.0)
OPEN = Breaker("open", failures=3, pauses=1, until=110.0)
HALF = Breaker("half_open", failures=3, pauses=1, until=110.0)

STEPS = [
    ("the first failure is borne", Breaker(), "fail", Breaker("closed", 1)),
    ("the last opens it", Breaker("closed", 2), "fail", Breaker("open", 3, 1, 110.0)),
    ("success forgets failures", Breaker("closed", 2), "succeed", Breaker()),
    ("a failed probe opens it for longer", HALF, "fail", Breaker("open", 4, 2, 120.0)),
    ("a probe that succeeds closes it", HALF, "succeed", Breaker()),
    (
        "pauses have a limit",
        Breaker("half_open", 9, pauses=7),
        "fail",
        Breaker("open", 10, 8, 160.0),
    ),
    (
        "however often it opened",
        Breaker("half_open", 9, pauses=10**6),
        "fail",
        Breaker("open", 10, 10**6 + 1, 160.0),
    ),
]


@pytest.mark.parametrize(("what", "before", "event", "after"), STEPS)
def test_a_step(what: str, before: Breaker, event: str, after: Breaker) -> None:
    """At 100 s, with the whole pause."""
    done = succeed(before) if event == "succeed" else fail(before, RULES, 100.0, 0.0)
    assert done == after, what


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        (Breaker(), 0.0, "closed"),
        (OPEN, 109.9, "open"),
        (OPEN, 110.0, "half_open"),
        (HALF, 0.0, "half_open"),
    ],
)
def test_an_open_circuit_is_tried_when_its_pause_is_over(
    before: Breaker, now: float, state: str
) -> None:
    """Not before."""
    assert admit(before, now).state == state


def test_chance_takes_off_up_to_half_of_the_pause() -> None:
    """Replicas must not come back together."""
    before = Breaker("closed", 2)
    assert fail(before, RULES, 100.0, 0.0).until == 110.0
    assert fail(before, RULES, 100.0, 1.0).until == 105.0


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 200), st.floats(0, 1))),
    st.builds(Rules, st.integers(1, 5), st.floats(0.1, 50), st.floats(50, 500)),
)
def test_laws(events: list[tuple[bool, float, float]], rules: Rules) -> None:
    """Failures are counted in a row; an open circuit is tried after a pause within its limits."""
    breaker, now, row = Breaker(), 0.0, 0
    for good, gap, chance in events:
        now += gap
        breaker = admit(breaker, now)
        if breaker.state == "open":
            assert now < breaker.until <= now + rules.last_pause
            continue
        breaker = succeed(breaker) if good else fail(breaker, rules, now, chance)
        row = 0 if good else row + 1
        assert breaker.failures == row
        assert (breaker.state == "open") == (row >= rules.failures)
        if breaker.state == "open":
            pause = breaker.until - now
            assert min(rules.first_pause, rules.last_pause) / 2 - 1e-6 <= pause
            assert pause <= rules.last_pause + 1e-6
