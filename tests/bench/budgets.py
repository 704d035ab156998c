"""The goals of all rows in one table, `budgets.yaml`, and when one counts as missed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

import msgspec

from tests.bench.rows import Row, Wanted

TABLE: Final = Path(__file__).with_name("budgets.yaml")
REPEATS: Final = 3
"""Measurements of a row before it may fail."""

RATIO_MARGIN: Final = 0.15
PLAIN_MARGIN: Final = 0.5
"""A number without a peer is about the machine as much as about us."""

Verdict = Literal["held", "noise", "missed", "unknown"]


class BudgetError(ValueError):
    """The table of budgets does not read, or an entry contradicts itself."""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the rows that `table` and `row` describe shall reach.

    `today` is the value that is held to while the goal is missed. A `plain` goal is about ours
    alone, though a peer stands beside it; `ratio` then is what the ratio to the peer is held to.
    """

    table: str
    row: str
    at_most: float | None = None
    at_least: float | None = None
    today: float | None = None
    plain: bool = False
    ratio: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        """Refuse an entry without a bound, or with a value of today that reaches the goal."""
        where = f"{self.table!r}, {self.row!r}"
        if (self.at_most is None) == (self.at_least is None):
            raise BudgetError(f"{where}: either at_most or at_least")
        if self.ratio is not None and not self.plain:
            raise BudgetError(f"{where}: `ratio` is for a plain goal")
        if self.margin is not None and self.margin < 0:
            raise BudgetError(f"{where}: a margin of {self.margin:g} is below 0")
        if self.today is not None and _reaches(self.today, self.wanted, self.goal):
            raise BudgetError(f"{where}: {self.today:g} reaches the goal: leave `today` out")

    @property
    def wanted(self) -> Wanted:
        """Which side of the goal is good."""
        return "at least" if self.at_most is None else "at most"

    @property
    def goal(self) -> float:
        """What shall be reached."""
        return self.at_most if self.at_most is not None else self.at_least or 0.0

    @property
    def held_to(self) -> float:
        """What is guarded: the goal, or the value of today where that is worse."""
        return self.goal if self.today is None else self.today

    def fits(self, row: Row) -> bool:
        """Return whether this is about a row."""
        return fnmatchcase(row.table, self.table) and fnmatchcase(row.name, self.row)


def read_budgets(text: str | bytes) -> tuple[Budget, ...]:
    """Read a table. Raises BudgetError."""
    try:
        return tuple(msgspec.yaml.decode(text, type=list[Budget]))
    except (msgspec.DecodeError, BudgetError) as error:
        raise BudgetError(f"budgets: {error}") from None


def find_budget(row: Row, budgets: Iterable[Budget]) -> Budget | None:
    """Return the first budget that fits, None if there is none."""
    return next((budget for budget in budgets if budget.fits(row)), None)


def set_goals(rows: Iterable[Row], budgets: Sequence[Budget]) -> list[Row]:
    """Return the rows with the table's goals in the place of their own."""
    done = []
    for row in rows:
        budget = find_budget(row, budgets)
        if budget is not None:
            row = msgspec.structs.replace(  # noqa: PLW2901 -- the same row
                row,
                wanted=budget.wanted,
                goal=budget.goal,
                plain=budget.plain,
                held_to=budget.held_to,
            )
        done.append(row)
    return done


def unused(rows: Sequence[Row], budgets: Iterable[Budget]) -> list[Budget]:
    """Return the budgets of measured tables that no row fits: their row has another name now."""
    tables = {row.table for row in rows}
    return [
        budget
        for budget in budgets
        if any(fnmatchcase(table, budget.table) for table in tables)
        and not any(budget.fits(row) for row in rows)
    ]


def loose(rows: Iterable[Row], budgets: Sequence[Budget]) -> list[tuple[Row, Budget]]:
    """Return the rows that do better than the `today` of their budget by more than the margin.

    One run is not enough to tighten a budget, but it is a reason to look.
    """
    found = []
    for row in rows:
        budget = find_budget(row, budgets)
        if budget is None or budget.today is None or row.foreign:
            continue
        margin = RATIO_MARGIN if budget.margin is None else budget.margin
        better = budget.today * (1 - margin if budget.wanted == "at most" else 1 + margin)
        if _reaches(row.judged, budget.wanted, better):
            found.append((row, budget))
    return found


def judge(measured: Sequence[Row], budget: Budget) -> Verdict:
    """Say what a row's measurements, one or more, mean.

    One that holds the budget is enough: what a machine did once it can do, and what disturbs only
    ever adds. `missed` is said of REPEATS that all missed it, if their median did so by more than
    the margin; else it is `noise`. Fewer than that are `unknown`: measure again.
    """
    values, bound, margin = guarded(measured, budget)
    if any(_reaches(value, budget.wanted, bound) for value in values):
        return "held"
    if len(values) < REPEATS:
        return "unknown"
    limit = bound * (1 + margin if budget.wanted == "at most" else 1 - margin)
    clear = not _reaches(statistics.median(values), budget.wanted, limit)
    return "missed" if clear else "noise"


def guarded(measured: Sequence[Row], budget: Budget) -> tuple[list[float], float, float]:
    """Return the numbers that are held, to what, and the margin beyond which a miss is clear."""
    if budget.ratio is not None and all(row.ratio is not None for row in measured):
        values, bound, usual = [row.ratio or 0.0 for row in measured], budget.ratio, RATIO_MARGIN
    else:
        values, bound = [row.judged for row in measured], budget.held_to
        alone = budget.plain or measured[0].ratio is None
        usual = PLAIN_MARGIN if alone else RATIO_MARGIN
    return values, bound, usual if budget.margin is None else budget.margin


def _reaches(value: float, wanted: Wanted, bound: float) -> bool:
    return value <= bound if wanted == "at most" else value >= bound
