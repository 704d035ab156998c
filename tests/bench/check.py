"""`make bench-check`: measures again what missed its budget, before anything is called missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from tests.bench.budgets import REPEATS, Budget, find_budget, guarded, judge
from tests.bench.rows import Row

Taken = dict[tuple[str, str], tuple[Budget, list[Row]]]
"""Measurements by table and name, with what bounds them."""


def check_again(
    first: Iterable[Row],
    again: Callable[[], Iterable[Row]],
    budgets: Sequence[Budget],
    console: Console,
) -> list[str]:
    """Return a line for each row that misses its budget clearly, in every measurement.

    `again` measures the rows anew; it is called while a verdict needs it, at most REPEATS - 1
    times. A row that does not come again was never judged.
    """
    taken = {
        (row.table, row.name): (budget, [row])
        for row in first
        if (budget := find_budget(row, budgets)) is not None
    }
    for _ in range(REPEATS - 1):
        doubtful = {
            key for key, (budget, rows) in taken.items() if judge(rows, budget) == "unknown"
        }
        if not doubtful:
            break
        console.print(f"{len(doubtful)} missed their budget and are measured again")
        for row in again():
            if (row.table, row.name) in doubtful:
                taken[row.table, row.name][1].append(row)
    return _tell_verdicts(taken, console)


def _tell_verdicts(taken: Taken, console: Console) -> list[str]:
    lost = []
    for (table, name), (budget, rows) in taken.items():
        verdict = judge(rows, budget)
        values, bound, _ = guarded(rows, budget)
        told = ", ".join(f"{value:.3g}" for value in values)
        line = f"{table}: {name}: {told}; {budget.wanted} {bound:g}"
        if verdict != "held":
            console.print(f"{verdict}: {line}", highlight=False)
        if verdict == "missed":
            lost.append(line)
    return lost


def complain(rows: Iterable[Row], console: Console) -> None:
    """Name the goals that this run missed, whatever their budgets say."""
    for row in rows:
        if row.reached is False:
            console.print(
                f"goal missed: {row.table}: {row.name}: {row.judged:.3g}, {row.wanted} {row.goal}",
                highlight=False,
            )
