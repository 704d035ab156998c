"""What others say of themselves is never shown as ours, nor compared in a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import placement, published
from tests.bench.report import as_markdown
from tests.bench.rows import Row
from tests.e2e.errors import MissingError


def test_a_published_figure_stands_beside_the_nearest_row_of_this_run() -> None:
    """There is no ratio: machines and clusters differ."""
    ours = Row(
        table="The whole scheduler on the real control plane",
        name="100 nodes, 500 pods of one GPU: shortlist",
        ours=219.0,
        unit="pods/s",
    )
    row = next(row for row in published.rows([ours]) if row.name == "Koordinator")
    assert (row.ours, row.other, row.ratio) == (219.0, 45.6, None)


def test_without_such_a_row_ours_is_empty() -> None:
    """A run of some sections says nothing of the others."""
    rows = list(published.rows([]))
    assert all(row.ours is None and row.reached is None for row in rows)
    assert "| Koordinator | 45.6 pods/s |" in as_markdown(rows, {})


def test_their_tables_say_that_nothing_was_measured_here() -> None:
    """In the heading, which nobody can overlook."""
    assert all("NOT here" in row.table for row in published.rows([]))


def test_units_are_those_of_the_row_beside_them() -> None:
    """What cannot be compared in a number can be read side by side."""
    expected = {"pods/s", "ms", "us"}
    assert {row.unit for row in published.rows([])} == expected


def test_placement_is_left_out_without_its_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the variable, or what the folder lacks."""
    monkeypatch.delenv("OPENB", raising=False)
    with pytest.raises(MissingError, match="OPENB does not name"):
        placement.find_lists()
    monkeypatch.setenv("OPENB", str(tmp_path))
    with pytest.raises(MissingError, match="has no openb_node_list"):
        placement.find_lists()
