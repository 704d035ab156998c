"""The plots of `gputopo simulate --figures`: SVG that other programs read."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from cli.line_chart import HEIGHT, WIDTH, choose_ticks, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    """Read what was drawn by ourselves."""
    return ET.fromstring(svg)  # noqa: S314 -- our own text


def test_each_line_has_its_points_and_its_name() -> None:
    """More is higher, which in SVG is a smaller y; all lies within the picture."""
    drawn = parse(draw_lines("t", "x", "y", {"one": [(0, 1), (10, 3)], "two": [(0, 2), (10, 0)]}))
    one, two = drawn.findall(f"{SVG}polyline")
    points = [tuple(map(float, word.split(","))) for word in one.attrib["points"].split()]
    assert points[0][0] < points[1][0]
    assert points[0][1] > points[1][1]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)
    assert one.attrib["stroke"] != two.attrib["stroke"]
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert texts[0] == "t"
    assert {"one", "two", "x", "y"} <= set(texts)


def test_names_are_escaped() -> None:
    """A list may be called anything."""
    drawn = parse(draw_lines("<&>", "x", "y", {'"a" < b': [(0, 1)]}))
    assert '"a" < b' in [text.text for text in drawn.findall(f"{SVG}text")]


def test_nothing_to_draw_is_an_empty_chart() -> None:
    """No line, no error."""
    assert parse(draw_lines("t", "x", "y", {})).findall(f"{SVG}polyline") == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 13.7, [0, 2.5, 5, 7.5, 10, 12.5, 15]),
        (75, 130, [70, 80, 90, 100, 110, 120, 130]),
        (0, 0.04, [0, 0.01, 0.02, 0.03, 0.04]),
    ],
)
def test_ticks_are_round_and_span_the_range(low: float, high: float, ticks: list[float]) -> None:
    """About six, by 1, 2, 2.5 or 5 times a power of ten."""
    assert choose_ticks(low, high) == ticks
