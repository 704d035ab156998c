"""A measured row, and the ways to show a table of them. Pure but for printing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

Wanted = Literal["at most", "at least"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: ours beside a peer or a limit, measured in the same run.

    `ours` and `other` are in `unit`; `other` is None where there is nothing to stand beside. `goal`
    bounds the ratio ours/other, or ours itself where there is no other. `spread` is the least and
    the greatest of what `ours` is the median of. `note` says what no column does.
    """

    table: str
    name: str
    ours: float
    other: float | None = None
    unit: str
    wanted: Wanted = "at most"
    goal: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the other; None if there is none."""
        return self.ours / self.other if self.other else None

    @property
    def judged(self) -> float:
        """The number that the goal is about."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached, None if there is none."""
        if self.goal is None:
            return None
        return self.judged <= self.goal if self.wanted == "at most" else self.judged >= self.goal


def summarise(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median, and the least and the greatest."""
    return statistics.median(values), (min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which `percent` of them lie; of few values the greatest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return e of the best fit value = c * size^e: 1 grows as the size does, 0 not at all."""
    import numpy as np

    slope, _ = np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-12)), 1)
    return float(slope)


def as_json(rows: Iterable[Row], about: dict[str, str]) -> bytes:
    """Return all as JSON: what was measured on what, and a list of rows."""
    # numpy's numbers are floats that msgspec does not know.
    listed = [
        {**msgspec.to_builtins(row, enc_hook=float), "ratio": row.ratio and float(row.ratio)}
        for row in rows
    ]
    return msgspec.json.format(msgspec.json.encode({"about": about, "rows": listed}), indent=2)


def as_markdown(rows: Iterable[Row], about: dict[str, str]) -> str:
    """Return all as a page for the documentation."""
    lines = ["; ".join(f"{key} {value}" for key, value in about.items()), ""]
    for table, members in _by_table(rows).items():
        lines += [f"### {table}", "", "| what | ours | beside it | ratio | goal | |"]
        lines += ["|---|---:|---:|---:|---|---|"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in members]
        lines.append("")
    return "\n".join(lines)


def show(rows: Iterable[Row], console: Console) -> None:
    """Print all as tables."""
    for name, members in _by_table(rows).items():
        table = Table(title=name, title_justify="left")
        for heading in ("what", "ours", "beside it", "ratio", "goal", ""):
            right = heading in {"ours", "beside it", "ratio"}
            table.add_column(heading, justify="right" if right else "left")
        for row in members:
            style = "red" if row.reached is False else None
            table.add_row(*_cells(row), style=style)
        console.print(table)


def _by_table(rows: Iterable[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables


def _cells(row: Row) -> list[str]:
    ours = _number(row.ours)
    if row.spread is not None:
        ours += f" ({_number(row.spread[0])}-{_number(row.spread[1])})"
    goal = ""
    if row.goal is not None:
        goal = f"{row.wanted} {row.goal:g}" + ("" if row.reached else " MISSED")
    other = "" if row.other is None else f"{_number(row.other)} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return [row.name, f"{ours} {row.unit}", other, ratio, goal, row.note]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
