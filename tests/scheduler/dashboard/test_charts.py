"""Charts as SVG: what is in the numbers is in the picture, and no text becomes markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dashboard.charts import (
    Line,
    Part,
    columns_of,
    draw_bar,
    draw_heat_map,
    draw_lines,
)
from scheduler.dashboard.svg import element

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")))


def parse(markup: str) -> ET.Element:
    """Read a picture as XML."""
    return ET.fromstring(markup)  # noqa: S314 -- our own


@given(TEXT, TEXT)
def test_whatever_is_put_in_comes_out_as_text(text: str, value: str) -> None:
    """Children and attributes alike."""
    drawn = parse(element("text", text, aria_label=value))
    assert (drawn.text or "") == text
    assert drawn.attrib["aria-label"].split() == value.split()


@given(st.lists(st.sampled_from(["step0", "step1", "unknown"]), min_size=1, max_size=400))
def test_a_heat_map_has_a_cell_for_each_node_and_a_path_for_each_colour(colours: list[str]) -> None:
    """Row by row: the n-th node is where the pointer looks for it."""
    drawn = parse(draw_heat_map(colours, "nodes"))
    columns = columns_of(len(colours))
    found = {}
    for path in drawn.findall("path"):
        for x, y in re.findall(r"M(\d+) (\d+)", path.attrib["d"]):
            found[int(y) // 10 * columns + int(x) // 10] = path.attrib["class"]
    assert [found[place] for place in range(len(colours))] == colours
    assert len(drawn.findall("path")) == len(set(colours))


def test_five_thousand_nodes_are_a_small_picture() -> None:
    """A few elements, 150 kB at most before compression."""
    drawn = draw_heat_map([f"step{place % 5}" for place in range(5000)], "nodes")
    assert len(parse(drawn)) == 6
    assert len(drawn) < 150_000


@given(st.lists(st.just(0.0) | st.floats(1e-3, 100), max_size=12))
def test_the_parts_of_a_bar_lie_side_by_side(lengths: list[float]) -> None:
    """Each as long as its share; those of no length are left out."""
    parts = [Part("s0", length, str(length)) for length in lengths]
    drawn = parse(draw_bar(parts, "bar", whole=1200))
    at = 0.0
    for rect in drawn:
        assert float(rect.attrib["x"]) == pytest.approx(at, abs=1)
        at = float(rect.attrib["x"]) + float(rect.attrib["width"])
    assert at == pytest.approx(sum(lengths) / 1.2, abs=1)
    assert len(drawn) == sum(length > 0 for length in lengths)


@pytest.mark.parametrize(
    "points",
    [(), ((0.0, None),), ((5.0, 0.0),), ((0.0, 1.0), (60.0, None), (70.0, 3e6), (7200.0, 2.0))],
)
def test_a_chart_stays_in_its_frame(points: tuple[tuple[float, float | None], ...]) -> None:
    """Nothing, one point, gaps and great numbers."""
    drawn = parse(draw_lines([Line("x", "l0", points)], "chart", unit="%"))
    width, height = map(float, drawn.attrib["viewBox"].split()[2:])
    (path,) = drawn.findall("path")
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path.attrib["d"]):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height
    shown = sum(value is not None for _, value in points)
    assert len(re.findall("[ML]", path.attrib["d"])) == shown


def test_a_gap_in_the_values_is_a_gap_in_the_line() -> None:
    """The pen is lifted."""
    points = ((0.0, 1.0), (10.0, None), (20.0, 2.0))
    drawn = parse(draw_lines([Line("x", "l0", points)], "chart", unit="%"))
    assert drawn.findall("path")[0].attrib["d"].count("M") == 2
