"""What a run of `make bench` leaves: JSON, Markdown, and the tables of the documentation."""

from __future__ import annotations

import msgspec
import pytest

from tests.bench.growth import growth_row
from tests.bench.report import as_json, as_markdown, put_into
from tests.bench.rows import Row, fit_exponent
from tests.bench.run import PAGE

ROW = Row(
    table="The filter",
    name="500 names, p50",
    ours=0.65,
    other=0.19,
    unit="ms",
    goal=1.5,
    held_to=3.5,
    spread=(0.6, 1.2),
    note="why",
)
ABOUT = {"processor": "a", "cores": "2"}


def test_markdown_tells_ours_the_peer_the_goal_and_what_is_held_instead() -> None:
    """The machine stands above."""
    text = as_markdown([ROW], ABOUT)
    assert text.startswith("processor a; cores 2\n")
    assert (
        "| 500 names, p50 | 0.65 (0.6-1.2) ms | 0.19 ms | 3.42 "
        "| at most 1.5 MISSED, held to 3.5 | why |"
    ) in text


def test_a_goal_that_is_reached_needs_no_more_words() -> None:
    """Nothing is held to where the goal is."""
    reached = msgspec.structs.replace(ROW, ours=0.2)
    assert "| at most 1.5 | why |" in as_markdown([reached], ABOUT)


def test_json_has_the_machine_and_a_list_of_rows() -> None:
    """Each with the keys that others rely on."""
    read = msgspec.json.decode(as_json([ROW], ABOUT))
    assert read["about"] == ABOUT
    (row,) = read["rows"]
    assert {"name", "ours", "other", "ratio", "unit"} <= row.keys()
    assert row["ratio"] == pytest.approx(0.65 / 0.19)


def test_the_tables_of_a_page_lie_between_its_marks() -> None:
    """What stands around them stays; a second run replaces the first."""
    page = "before\n<!-- measured -->\nold\n<!-- end -->\nafter\n"
    done = put_into(put_into(page, "one\n"), "two\n")
    assert done == "before\n<!-- measured -->\ntwo\n<!-- end -->\nafter\n"


@pytest.mark.parametrize("page", ["no mark", "<!-- measured -->\n<!-- end -->" * 2])
def test_a_page_without_one_place_for_them_is_refused(page: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="wanted 1"):
        put_into(page, "one")


def test_the_documentation_has_the_place() -> None:
    """`make bench ARGS=--page` can write it."""
    assert "new" in put_into(PAGE.read_text(), "new")


def test_growth_is_the_exponent_of_the_best_fit() -> None:
    """What grows as the size has 1, what stays has 0, what grows as its square has 2."""
    sizes = (10, 100, 1000)
    for exponent in (0, 1, 2):
        assert fit_exponent(sizes, [3.0 * n**exponent for n in sizes]) == pytest.approx(exponent)


def test_a_growth_row_says_what_comes_at_fifty_thousand() -> None:
    """Measured where the sizes reach so far, else carried on from the largest of them."""
    assert (
        growth_row("x", (500, 5_000), (1.0, 10.0), "ms").note == "would be 100 ms at 50,000 nodes"
    )
    assert growth_row("x", (500, 50_000), (1.0, 7.0), "ms").note == "7 ms at 50,000 nodes"


def test_what_shrinks_is_not_carried_on() -> None:
    """An exponent below 0 is noise around 0."""
    assert growth_row("x", (500, 5_000), (2.0, 1.0), "ms").note == "would be 1 ms at 50,000 nodes"
