"""`gputopo bench`: rows for people and for programs; what they say depends on the machine."""

from __future__ import annotations

import json

import pytest

from cli.main import run


def ended(*arguments: str) -> object:
    """Run the command to its end and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return caught.value.code


def test_json_is_a_list_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has ours in a unit; where a search was measured, its ratio is there too."""
    assert ended("bench", "l4-8x", "--nodes", "20", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(row.keys() == {"name", "ours", "other", "ratio", "unit"} for row in rows.values())
    pair = rows["l4-8x: 2 of 8 GPUs"]
    assert pair["ratio"] == pytest.approx(pair["ours"] / pair["other"])
    assert rows["20 nodes: a decision, 1 GPU"]["other"] is None


def test_people_get_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """With the search beside it."""
    assert ended("bench", "l4-8x", "--nodes", "20") == 0
    told = capsys.readouterr().out
    assert "l4-8x: 2 of 8 GPUs" in told
    assert "search" in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("bench", "no-such-box"), "no-such-box"),
        (("bench", "--nodes", "0"), "0 is not 1 to 100000"),
        (("bench", "--nodes", "x"), "--nodes"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was measured before."""
    assert ended(*words) == 2
    told = capsys.readouterr()
    assert problem in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
