"""Rows as JSON, as Markdown, as tables on a terminal, and as the tables of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Row

_PLACE: Final = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)

_HEADINGS: Final = ("what", "ours", "beside it", "ratio", "goal", "remarks")
_NUMBERS: Final = frozenset(("ours", "beside it", "ratio"))


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
    lines = [describe(about), ""]
    for table, members in _by_table(rows).items():
        columns = _columns(members)
        lines += [f"### {table}", "", f"| {' | '.join(columns)} |"]
        lines.append(f"|{'|'.join('---:' if name in _NUMBERS else '---' for name in columns)}|")
        lines += [f"| {' | '.join(cells)} |" for cells in zip(*columns.values(), strict=True)]
        lines.append("")
    return "\n".join(lines)


def describe(about: dict[str, str]) -> str:
    """Return what was measured on what in one line."""
    return "; ".join(f"{key} {value}" for key, value in about.items())


def put_into(page: str, tables: str) -> str:
    """Return the page with these tables between its marks. Raises ValueError without them."""
    page, times = _PLACE.subn(lambda found: f"{found[1]}{tables.strip()}\n{found[2]}", page)
    if times != 1:
        raise ValueError(f"there are {times} places marked <!-- measured -->, wanted 1")
    return page


def show(rows: Iterable[Row], console: Console) -> None:
    """Print all as tables."""
    for name, members in _by_table(rows).items():
        table = Table(title=name, title_justify="left")
        columns = _columns(members)
        for heading in columns:
            table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
        for row, cells in zip(members, zip(*columns.values(), strict=True), strict=True):
            table.add_row(*cells, style="red" if row.reached is False else None)
        console.print(table)


def _by_table(rows: Iterable[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables


def _columns(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return the cells by their heading, without columns in which nothing stands."""
    by_row = [_cells(row) for row in rows]
    columns = zip(_HEADINGS, map(list, zip(*by_row, strict=True)), strict=True)
    return {heading: cells for heading, cells in columns if any(cells)}


def _cells(row: Row) -> list[str]:
    spread = ""
    if row.spread is not None:
        spread = f" ({_number(row.spread[0])}-{_number(row.spread[1])})"
    ours = "" if row.ours is None else f"{_number(row.ours)}{spread} {row.unit}".rstrip()
    goal = ""
    if row.goal is not None:
        goal = f"{row.wanted} {row.goal:g}"
    if row.reached is False:
        goal += " MISSED"
        if row.held_to not in {None, row.goal}:
            goal += f", held to {row.held_to:g}"
    other = "" if row.other is None else f"{_number(row.other)} {row.unit}".rstrip()
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return [row.name, ours, other, ratio, goal, row.note]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
