"""What a run does with sections that cannot be measured, and with words that contradict."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.bench.about import describe_run
from tests.bench.budgets import Budget
from tests.bench.rows import Row
from tests.bench.run import Bench, main
from tests.bench.sections import SECTIONS
from tests.e2e.errors import MissingError

ROW = Row(table="filter", name="500 names", ours=1.0, unit="ms")


def works(quick: bool) -> Iterator[Row]:
    """Measure a row."""
    yield ROW


def lacks(quick: bool) -> Iterator[Row]:
    """Lack something."""
    raise MissingError("go is not on the PATH")
    yield ROW


def breaks(quick: bool) -> Iterator[Row]:
    """Break off after a row."""
    yield ROW
    raise ValueError("what nobody thought of")


def bench(*budgets: Budget) -> Bench:
    """Make a run of made-up sections."""
    sections = {"works": works, "lacks": lacks, "breaks": breaks}
    return Bench(sections, budgets, Console(quiet=True), quick=True)


def test_rows_get_their_goals() -> None:
    """From the table of budgets."""
    (row,) = bench(Budget(table="filter", row="*", at_most=2.0)).measure("works")
    assert row.goal == 2.0


def test_a_section_without_what_it_needs_is_left_out() -> None:
    """It is no failure, and is named above the tables."""
    run = bench()
    assert run.measure("lacks") == []
    assert (run.left_out, run.broken) == (["lacks"], [])


def test_a_section_that_breaks_off_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """What it had measured is kept, the cause is told, and the run will end with an error."""
    run = bench()
    assert [row.name for row in run.measure("breaks")] == ["500 names"]
    assert (run.left_out, run.broken) == ([], ["breaks"])
    assert "what nobody thought of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nonsense"], "no section nonsense"),
        (["--page", "--quick"], "--page is for a whole run"),
        (["--page", "engine"], "--page is for a whole run"),
    ],
)
def test_words_that_contradict_are_refused(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_the_run_says_what_it_was_measured_on() -> None:
    """Machine, versions of both sides, and seeds."""
    about = describe_run()
    named = {"processor", "cores", "load at the start", "Python", "Kubernetes", "seeds"}
    assert named <= about.keys()
    assert about["NVIDIA's plugin"].startswith("v0.")
    assert about["its allocator"].startswith("v0.")


def test_the_documentation_names_every_section() -> None:
    """What can be asked for by name can be read about."""
    from tests.bench.run import PAGE

    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in SECTIONS if f"| `{name}` |" not in page] == []
