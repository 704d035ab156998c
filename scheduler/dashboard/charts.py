"""Charts as SVG: a heat map, bars and lines. Colours are the style sheet's, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from scheduler.dashboard.svg import element, image, number, title

CELL: Final = 10
"""A cell of the heat map with its gap, in the picture's own pixels."""

GAP: Final = 1.5


class Part(msgspec.Struct, frozen=True):
    """A part of a bar: the class of its colour, how long it is, and what it stands for."""

    colour: str
    length: float
    label: str


class Line(msgspec.Struct, frozen=True):
    """A line of a chart: points of (seconds, value), a value of None breaks it.

    With `dots` each point stands for itself.
    """

    name: str
    colour: str
    points: tuple[tuple[float, float | None], ...]
    dots: bool = False


def columns_of(count: int) -> int:
    """Return how many columns a heat map of so many cells has: 5:2, as a screen is wide."""
    return max(1, math.ceil(math.sqrt(count * 2.5)))


def draw_heat_map(colours: Sequence[str], label: str) -> Markup:
    """Draw cells row by row. All cells of a colour are one path: 5,000 cells are a few elements."""
    columns = columns_of(len(colours))
    rows = math.ceil(len(colours) / columns)
    side = number(CELL - GAP)
    paths: dict[str, list[str]] = {}
    for place, colour in enumerate(colours):
        row, column = divmod(place, columns)
        paths.setdefault(colour, []).append(f"M{column * CELL} {row * CELL}")
    square = f"h{side}v{side}h-{side}z"
    return image(
        columns * CELL,
        rows * CELL,
        label,
        *(
            element("path", class_=colour, d="".join(f"{start}{square}" for start in starts))
            for colour, starts in sorted(paths.items())
        ),
        element("rect", class_="cursor", width=CELL - GAP, height=CELL - GAP, x=-CELL, y=-CELL),
        class_="heat",
    )


def draw_bar(parts: Sequence[Part], label: str, *, whole: float = 100) -> Markup:
    """Draw parts one after the other; `whole` is the length that fills the bar."""
    drawn: list[Markup] = []
    at = 0.0
    for part in parts:
        length = max(0.0, part.length) / whole * 1000 if whole > 0 else 0.0
        if length:
            drawn.append(
                element(
                    "rect",
                    title(part.label),
                    class_=part.colour,
                    x=at,
                    y=0,
                    width=length,
                    height=10,
                )
            )
        at += length
    return image(1000, 10, label, *drawn, class_="bar", preserveAspectRatio="none")


_WIDTH: Final = 460
_HEIGHT: Final = 180
_LEFT: Final = 40
_RIGHT: Final = 8
_TOP: Final = 10
_BOTTOM: Final = 22


def draw_lines(lines: Sequence[Line], label: str, *, unit: str, least: float = 1.0) -> Markup:
    """Draw lines over time, the newest at the right; `least` is the smallest top of the scale."""
    points = [point for line in lines for point in line.points]
    last = max((at for at, _ in points), default=0.0)
    first = min((at for at, _ in points), default=last)
    top = _round_up(max([value for _, value in points if value is not None] + [least]))
    span = max(last - first, 60.0)

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (1 - (last - at) / span)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    drawn: list[Markup] = []
    for step in range(5):
        value = top * step / 4
        drawn += (
            element("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(value), y2=y(value)),
            element(
                "text", f"{value:g}", class_="tick", x=_LEFT - 6, y=y(value) + 4, text_anchor="end"
            ),
        )
    for part, anchor in ((1.0, "start"), (0.5, "middle"), (0.0, "end")):
        drawn.append(
            element(
                "text",
                _ago(span * part),
                class_="tick",
                x=x(last - span * part),
                y=_HEIGHT - 6,
                text_anchor=anchor,
            )
        )
    drawn += [
        element(
            "path",
            title(f"{line.name} ({unit})"),
            class_=f"{'dots' if line.dots else 'line'} {line.colour}",
            d=_trace(
                [(x(at), None if value is None else y(value)) for at, value in line.points],
                dots=line.dots,
            ),
        )
        for line in lines
    ]
    return image(_WIDTH, _HEIGHT, label, *drawn, class_="chart")


def _trace(points: Sequence[tuple[float, float | None]], *, dots: bool) -> str:
    """Write a path; one that is a single point still leaves a dot."""
    written: list[str] = []
    broken = True
    for x, y in points:
        if y is None:
            broken = True
        elif broken:
            written.append(f"M{number(x)} {number(y)}h.1")
            broken = dots
        else:
            written.append(f"L{number(x)} {number(y)}")
    return "".join(written)


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5 and 10 times a power of ten, which quarter well."""
    power = math.pow(10, math.floor(math.log10(value)))
    return next(power * step for step in (1, 2, 4, 5, 10) if power * step >= value * 0.999)


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "now"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago"
