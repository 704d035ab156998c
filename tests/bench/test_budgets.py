"""When a row counts as missed: decided on made-up rows, not on this machine's."""

from __future__ import annotations

import pytest

from tests.bench.budgets import (
    TABLE,
    Budget,
    BudgetError,
    find_budget,
    judge,
    loose,
    read_budgets,
    set_goals,
    unused,
)
from tests.bench.rows import Row


def ratios(*values: float) -> list[Row]:
    """Return measurements of one row whose ratios to its peer are these."""
    return [
        Row(table="filter", name="500 names", ours=value, other=1.0, unit="ms") for value in values
    ]


def plain(*values: float) -> list[Row]:
    """Return measurements of one row that has no peer."""
    return [Row(table="filter", name="500 names", ours=value, unit="ms") for value in values]


AT_MOST = Budget(table="filter", row="*", at_most=2.0)
AT_LEAST = Budget(table="filter", row="*", at_least=2.0)
PLAIN = Budget(table="filter", row="*", at_most=2.0, plain=True)
BESIDE = Budget(table="filter", row="*", at_most=100.0, plain=True, ratio=2.0)
KNOWN_MISS = Budget(table="filter", row="*", at_most=2.0, today=4.0)


@pytest.mark.parametrize(
    ("measured", "budget", "verdict"),
    [
        (ratios(2.0), AT_MOST, "held"),
        (ratios(2.1), AT_MOST, "unknown"),
        (ratios(9.0, 9.0), AT_MOST, "unknown"),
        (ratios(9.0, 9.0, 2.0), AT_MOST, "held"),
        (ratios(2.1, 2.2, 2.3), AT_MOST, "noise"),
        (ratios(2.1, 2.2, 9.0), AT_MOST, "noise"),
        (ratios(2.1, 2.4, 2.5), AT_MOST, "missed"),
        (ratios(1.9, 1.8, 1.6), AT_LEAST, "noise"),
        (ratios(1.9, 1.6, 1.6), AT_LEAST, "missed"),
        (ratios(2.0, 1.0, 1.0), AT_LEAST, "held"),
        (ratios(3.9), KNOWN_MISS, "held"),
        (ratios(4.5, 4.5, 4.5), KNOWN_MISS, "noise"),
        (ratios(4.7, 4.7, 4.7), KNOWN_MISS, "missed"),
        (ratios(2.9, 2.9, 2.9), PLAIN, "noise"),
        (ratios(3.1, 3.1, 3.1), PLAIN, "missed"),
        (ratios(2.2, 2.2, 2.2), BESIDE, "noise"),
        (ratios(2.4, 2.4, 2.4), BESIDE, "missed"),
        (plain(2.4, 2.4, 2.4), BESIDE, "held"),
        (plain(2.9, 2.9, 2.9), AT_MOST, "noise"),
        (plain(3.1, 3.1, 3.1), AT_MOST, "missed"),
    ],
)
def test_missed_is_three_misses_with_a_median_clearly_beyond(
    measured: list[Row], budget: Budget, verdict: str
) -> None:
    """One measurement that holds is enough; a number without a peer has a wider margin."""
    assert verdict == judge(measured, budget)


def test_a_margin_of_its_own_counts() -> None:
    """Counts are not noise: what must be 0 is missed by anything else."""
    never = Budget(table="filter", row="*", at_most=0, margin=0)
    assert judge(plain(0.01, 0.01, 0.01), never) == "missed"


def test_the_first_budget_that_fits_counts() -> None:
    """A special row stands above the pattern that takes the others."""
    budgets = read_budgets(
        "- {table: fil*, row: '500 *', at_most: 1.5, today: 3}\n"
        "- {table: fil*, row: '*', at_most: 1.5}\n"
    )
    (row,) = ratios(1.0)
    assert find_budget(row, budgets) == budgets[0]
    assert find_budget(Row(table="filter", name="5", ours=1, unit="ms"), budgets) == budgets[1]
    assert find_budget(Row(table="bind", name="5", ours=1, unit="ms"), budgets) is None


def test_rows_get_the_goals_of_the_table() -> None:
    """A goal that the code has given is replaced; rows without a budget keep theirs."""
    own = Row(table="filter", name="500 names", ours=3, other=1, unit="ms", goal=7.0)
    other = Row(table="bind", name="x", ours=3, unit="ms", goal=7.0)
    done = set_goals([own, other], [KNOWN_MISS])
    assert [(row.goal, row.held_to) for row in done] == [(2.0, 4.0), (7.0, None)]
    assert done[0].reached is False


def test_a_plain_goal_is_about_ours_alone() -> None:
    """A peer may stand beside it all the same."""
    slow = Row(table="filter", name="500 names", ours=1.5, other=0.1, unit="ms")
    (done,) = set_goals([slow], [PLAIN])
    assert done.reached is True
    assert done.ratio == pytest.approx(15)


def test_a_value_of_today_that_is_left_behind_is_told() -> None:
    """By more than the margin: the budget can be tightened."""
    better, (same,) = ratios(3.3, 2.0), ratios(3.5)
    assert loose([*better, same], [KNOWN_MISS]) == [(row, KNOWN_MISS) for row in better]
    assert loose(better, [AT_MOST]) == []
    rising = Budget(table="filter", row="*", at_least=2.0, today=1.0)
    assert [row.ours for row, _ in loose(ratios(1.1, 1.2), [rising])] == [1.2]


def test_a_budget_whose_row_is_gone_is_found() -> None:
    """Only tables that were measured are looked at."""
    gone = Budget(table="filter", row="600 names", at_most=1)
    elsewhere = Budget(table="bind", row="*", at_most=1)
    assert unused(ratios(1.0), [AT_MOST, gone, elsewhere]) == [gone]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- {table: a, row: b}", "either at_most or at_least"),
        ("- {table: a, row: b, at_most: 1, at_least: 1}", "either at_most or at_least"),
        ("- {table: a, row: b, at_most: 2, today: 1.5}", "reaches the goal"),
        ("- {table: a, row: b, at_least: 2, today: 2}", "reaches the goal"),
        ("- {table: a, row: b, at_most: 2, ratio: 3}", "for a plain goal"),
        ("- {table: a, row: b, at_most: 2, margin: -1}", "below 0"),
        ("- {table: a, row: b, at_most: 2, tody: 3}", "tody"),
        ("- {table: a", "budgets"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(text: str, problem: str) -> None:
    """The error says which entry, and why."""
    with pytest.raises(BudgetError, match=problem):
        read_budgets(text)


def test_the_committed_table_reads() -> None:
    """Every entry has a bound, and a value of today only where the goal is missed."""
    assert read_budgets(TABLE.read_bytes())
