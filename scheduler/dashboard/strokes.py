"""Lines between points of a layout."""

from __future__ import annotations

from markupsafe import Markup

from scheduler.dashboard.layout import Layout
from scheduler.dashboard.svg import element, number


def write_point(layout: Layout, along: float, across: float) -> str:
    """Write a point as a path's coordinates."""
    return " ".join(map(number, layout.point(along, across)))


def draw_line(
    layout: Layout,
    start: tuple[float, float],
    end: tuple[float, float],
    kind: str,
    width: float,
) -> Markup:
    """Draw a line from one point, along and across, to another."""
    (x1, y1), (x2, y2) = layout.point(*start), layout.point(*end)
    return element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width)
