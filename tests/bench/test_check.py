"""`make bench-check` measures again before it says that something is missed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from tests.bench.budgets import Budget
from tests.bench.check import check_again
from tests.bench.rows import Row

BUDGETS = [Budget(table="filter", row="*", at_most=2.0)]


def row(name: str, ratio: float) -> Row:
    """Return a measurement."""
    return Row(table="filter", name=name, ours=ratio, other=1.0, unit="ms")


class Runs:
    """Measurements that come one after the other."""

    def __init__(self, *runs: list[Row]) -> None:
        self.left = list(runs)

    def __call__(self) -> Iterable[Row]:
        """Return the next."""
        return self.left.pop(0)


def check(first: list[Row], again: Runs) -> list[str]:
    """Check without printing."""
    return check_again(first, again, BUDGETS, Console(quiet=True))


def test_what_holds_is_measured_once() -> None:
    """A row without a budget is nobody's business."""
    other = Row(table="bind", name="x", ours=99, unit="ms")
    assert check([row("a", 1.0), other], Runs()) == []


def test_a_miss_that_does_not_come_again_is_none() -> None:
    """The second measurement holds: there is no third."""
    assert check([row("a", 3.0)], Runs([row("a", 1.0)])) == []


def test_a_miss_that_stays_is_told_with_all_its_values() -> None:
    """Rows that held in the first measurement are not judged by the others."""
    again = Runs([row("a", 3.1), row("b", 9.0)], [row("a", 3.2), row("b", 9.0)])
    (line,) = check([row("a", 3.0), row("b", 1.0)], again)
    assert line == "filter: a: 3, 3.1, 3.2; at most 2"
    assert again.left == []


def test_a_miss_by_little_is_noise() -> None:
    """All three miss, the median by less than the margin."""
    assert check([row("a", 2.1)], Runs([row("a", 2.2)], [row("a", 2.1)])) == []


def test_a_row_that_does_not_come_again_is_not_missed() -> None:
    """A section that is left out the second time gives no rows."""
    assert check([row("a", 3.0)], Runs([], [])) == []
