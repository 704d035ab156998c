"""`make bench`: every claim of speed beside a peer or a limit, measured in one run.

Sections that need what is not here (Go, root, a data set) say so and are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import published
from tests.bench.about import describe_run, load, time_loop
from tests.bench.budgets import TABLE, Budget, loose, read_budgets, set_goals, unused
from tests.bench.check import check_again, complain
from tests.bench.report import as_json, as_markdown, describe, put_into, show
from tests.bench.rows import Row
from tests.bench.sections import SECTIONS, Section
from tests.e2e.errors import MissingError

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"

PUBLISHED: Final = "published"
"""The section that measures nothing, and comes last."""


class Bench:
    """Measures sections, and remembers what could not be measured, and what broke off."""

    def __init__(
        self,
        sections: Mapping[str, Section],
        budgets: Sequence[Budget],
        progress: Console,
        *,
        quick: bool,
    ) -> None:
        self._sections = sections
        self.left_out: list[str] = []
        self.broken: list[str] = []
        self._budgets = budgets
        self._progress = progress
        self._quick = quick

    def measure(self, name: str) -> list[Row]:
        """Measure a section; what it needs and is not here is said."""
        self._progress.print(f"measuring: {name}")
        begun = time.monotonic()
        rows: list[Row] = []
        try:
            rows.extend(self._sections[name](self._quick))
        except MissingError as error:
            self._progress.print(f"left out: {name}: {error}")
            self.left_out.append(name)
        except Exception:  # noqa: BLE001 -- a run takes long: what else it measures is kept
            traceback.print_exc()
            self._progress.print(f"broken off: {name}")
            self.broken.append(name)
        self._progress.print(f"{name} took {time.monotonic() - begun:.0f} s")
        return set_goals(rows, self._budgets)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show; 1 if a section broke off or, with `--check`, a budget is clearly missed."""
    given = _read_words(words)
    budgets = read_budgets(TABLE.read_bytes())
    about = describe_run()
    begun = time.monotonic()
    # A file or a pipe has no width of its own, and the tables are wide.
    console = Console(width=None if sys.stdout.isatty() else 160)
    progress = Console(stderr=True)
    console.print(describe(about), highlight=False)
    if load() > (os.cpu_count() or 1) / 2:
        progress.print(f"something else runs here (load {load():.1f}): the figures will be worse")
        if given.page or given.check:
            progress.print("so nothing is checked, nor written into the documentation")
            return 2
    bench = Bench(SECTIONS, budgets, progress, quick=given.quick)
    rows: list[Row] = []
    lost: list[str] = []
    loops = [time_loop()]
    for name in [name for name in given.sections or SECTIONS if name != PUBLISHED]:
        measured = bench.measure(name)
        loops.append(time_loop())
        rows += measured
        show(measured, console)
        if given.check:
            lost += check_again(measured, partial(bench.measure, name), budgets, progress)
    if not given.sections or PUBLISHED in given.sections:
        others = list(published.rows(rows))
        rows += others
        show(others, console)
    about["a fixed loop between sections"] = f"{min(loops):.1f}-{max(loops):.1f} ms"
    about["took"] = f"{(time.monotonic() - begun) / 60:.1f} minutes"
    for what, names in (("left out", bench.left_out), ("broken off", bench.broken)):
        if names:
            about[what] = ", ".join(names)
    _write(rows, about, given)
    complain(rows, progress)
    for row, budget in loose(rows, budgets):
        progress.print(f"{TABLE.name}: held to {budget.today:g}, now {row.judged:.3g}: {row.name}")
    for budget in () if given.quick else unused(rows, budgets):
        progress.print(f"{TABLE.name}: no row fits {budget.table!r}, {budget.row!r}")
    return 1 if lost or bench.broken else 0


def _write(rows: Sequence[Row], about: dict[str, str], given: argparse.Namespace) -> None:
    if given.json:
        given.json.write_bytes(as_json(rows, about))
    if given.markdown:
        given.markdown.write_text(as_markdown(rows, about), encoding="utf-8")
    if given.page and "broken off" not in about:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(put_into(page, as_markdown(rows, about)), encoding="utf-8")


def _read_words(words: Sequence[str] | None) -> argparse.Namespace:
    names = (*SECTIONS, PUBLISHED)
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument(
        "--check",
        action="store_true",
        help="repeat what misses its budget; exit with 1 if it clearly does",
    )
    parser.add_argument("--openb", type=Path, help="folder of the openb lists, for placement")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument(
        "--page", action="store_true", help="write the tables of a whole run into the documentation"
    )
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(names)}; all by default")
    given = parser.parse_args(words)
    if given.openb:
        os.environ["OPENB"] = str(given.openb)
    unknown = set(given.sections) - set(names)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if given.page and (given.quick or given.sections):
        parser.error("--page is for a whole run: without --quick and names of sections")
    return given


if __name__ == "__main__":
    sys.exit(main())
