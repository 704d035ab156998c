"""A line chart as SVG text: pure, and small enough to need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

Points = Sequence[tuple[float, float]]

WIDTH: Final = 760
HEIGHT: Final = 420
# Room for the scale on the left, the names on the right, title and axis above and below.
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 40, 52
# Told apart by people who see colours differently as well.
COLOURS: Final = (
    "#999999",
    "#56b4e9",
    "#e69f00",
    "#cc79a7",
    "#8c6d31",
    "#d55e00",
    "#666699",
    "#009e73",
    "#004d40",
)
TICKS: Final = 6


class _Scale(msgspec.Struct, frozen=True):
    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        span = self.high - self.low
        return round(self.first + (value - self.low) / span * (self.last - self.first), 1)


def draw_lines(title: str, x_name: str, y_name: str, lines: Mapping[str, Points]) -> str:
    """Return the chart of these lines, points with rising x each; the y axis begins at 0."""
    xs = [x for points in lines.values() for x, _ in points] or [0.0]
    ys = [y for points in lines.values() for _, y in points] or [0.0]
    y_ticks = choose_ticks(0.0, max(ys) or 1.0)
    across = _Scale(min(xs), max(*xs, min(xs) + 1), LEFT, WIDTH - RIGHT)
    upward = _Scale(0.0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    view = f"0 0 {WIDTH} {HEIGHT}"
    parts = [
        f'<svg xmlns="{_SVG}" viewBox="{view}" font-family="sans-serif" font-size="12">',
        _tag("rect", width=WIDTH, height=HEIGHT, fill="white"),
        _tag("text", title, x=LEFT, y=22, font_size=14),
    ]
    for tick in y_ticks:
        y = upward.place(tick)
        parts.append(_tag("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, stroke="#e0e0e0"))
        parts.append(_tag("text", f"{tick:g}", x=LEFT - 6, y=y + 4, text_anchor="end"))
    for tick in choose_ticks(across.low, across.high):
        if across.low <= tick <= across.high:
            x, y = across.place(tick), HEIGHT - BOTTOM + 18
            parts.append(_tag("text", f"{tick:g}", x=x, y=y, text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_tag("text", x_name, x=middle, y=HEIGHT - 12, text_anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turn = f"rotate(-90 16 {middle})"
    parts.append(_tag("text", y_name, x=16, y=middle, text_anchor="middle", transform=turn))
    right = WIDTH - RIGHT + 12
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across.place(x)},{upward.place(y)}" for x, y in points)
        y = TOP + 12 + 18 * number
        parts.append(_tag("polyline", points=path, fill="none", stroke=colour, stroke_width=1.8))
        parts.append(
            _tag("line", x1=right, y1=y - 4, x2=right + 18, y2=y - 4, stroke=colour, stroke_width=3)
        )
        parts.append(_tag("text", name, x=right + 24, y=y))
    return "\n".join([*parts, "</svg>"]) + "\n"


_SVG: Final = "http://www.w3.org/2000/svg"


def _tag(name: str, text: str = "", **attributes: float | str) -> str:
    words = "".join(
        f" {key.replace('_', '-')}={quoteattr(str(value))}" for key, value in attributes.items()
    )
    return f"<{name}{words}>{escape(text)}</{name}>" if text else f"<{name}{words}/>"


def choose_ticks(low: float, high: float) -> list[float]:
    """Return round numbers that span the range, about six of them."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = min(power * one for one in (1, 2, 2.5, 5, 10) if power * one * TICKS >= span)
    first = math.floor(low / step)
    count = math.ceil(high / step - 1e-9) - first
    return [round((first + at) * step, 9) for at in range(max(count, 1) + 1)]
