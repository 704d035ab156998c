"""Where the parts of a machine's drawing lie. Pure geometry.

GPUs stand in two rows that face each other over a channel, where NVLinks and NVSwitches lie; a
row's NUMA nodes follow each other. Everything is worked out *along* the rows and *across* them:
lying, along is x; standing, which a phone's width wants, along is y.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Metrics(msgspec.Struct, frozen=True):
    """Sizes in pixels. `along` and `across` are a box's; the `pad` are a NUMA node's frame's.

    `outside` is the room for NICs beyond the first and the second row.
    """

    standing: bool
    along: float
    across: float
    gap: float
    pad_start: float
    pad_end: float
    pad_outer: float
    pad_inner: float
    panel_gap: float
    outside: tuple[float, float]
    margin: float


LYING = Metrics(
    standing=False,
    along=108,
    across=60,
    gap=14,
    pad_start=12,
    pad_end=12,
    pad_outer=26,
    pad_inner=12,
    panel_gap=26,
    outside=(64, 64),
    margin=4,
)
STANDING = Metrics(
    standing=True,
    along=52,
    across=116,
    gap=12,
    pad_start=28,
    pad_end=10,
    pad_outer=16,
    pad_inner=8,
    panel_gap=16,
    outside=(0, 0),
    margin=2,
)


class Box(msgspec.Struct, frozen=True):
    """A rectangle by its first corner along and across, and its lengths."""

    along: float
    across: float
    length: float
    depth: float

    @property
    def middle(self) -> float:
        """Its middle along."""
        return self.along + self.length / 2


class Panel(msgspec.Struct, frozen=True):
    """A NUMA node's frame; `number` is None if it is unknown."""

    number: int | None
    row: int
    box: Box


class Layout(msgspec.Struct, frozen=True):
    """Where everything lies. `boxes` and `rows` are by position; the channel by two edges."""

    metrics: Metrics
    boxes: dict[int, Box]
    rows: dict[int, int]
    panels: tuple[Panel, ...]
    channel: tuple[float, float]
    length: float
    depth: float

    def inner(self, position: int) -> tuple[float, float]:
        """Return the point of a GPU's box that faces the channel."""
        box = self.boxes[position]
        return box.middle, box.across + (box.depth if self.rows[position] == 0 else 0)

    def outer(self, position: int) -> tuple[float, float]:
        """Return the point of a GPU's box that faces away from the channel."""
        box = self.boxes[position]
        return box.middle, box.across + (0 if self.rows[position] == 0 else box.depth)

    def point(self, along: float, across: float) -> tuple[float, float]:
        """Turn along and across into x and y."""
        return (across, along) if self.metrics.standing else (along, across)

    def rectangle(self, box: Box) -> dict[str, float]:
        """Turn a box into an SVG rectangle's attributes."""
        x, y = self.point(box.along, box.across)
        width, height = self.point(box.length, box.depth)
        return {"x": x, "y": y, "width": width, "height": height}


def lay_out(numa: Sequence[int | None], channel: float, metrics: Metrics = LYING) -> Layout:
    """Lay out GPUs by the NUMA node of each position; the channel is as deep as its links want."""
    groups = _group(numa)
    # Two sockets, or a frame too long for a screen cut in two, face each other.
    first = max(1, (len(groups) + 1) // 2)
    rows = [row for row in (groups[:first], groups[first:]) if row]
    lengths = [sum(_length(len(members), metrics) for _, members in row) for row in rows]
    spans = [
        length + metrics.panel_gap * (len(row) - 1)
        for length, row in zip(lengths, rows, strict=True)
    ]
    longest = max(spans, default=0.0)
    frame = metrics.pad_outer + metrics.across + metrics.pad_inner
    starts = [
        metrics.margin + metrics.outside[0],
        metrics.margin + metrics.outside[0] + frame + channel,
    ]
    boxes: dict[int, Box] = {}
    row_of: dict[int, int] = {}
    panels: list[Panel] = []
    for row, groups_of_row in enumerate(rows):
        along = metrics.margin + (longest - spans[row]) / 2
        across = starts[row] + (metrics.pad_outer if row == 0 else metrics.pad_inner)
        for number, members in groups_of_row:
            length = _length(len(members), metrics)
            panels.append(Panel(number, row, Box(along, starts[row], length, frame)))
            for place, position in enumerate(members):
                at = along + metrics.pad_start + place * (metrics.along + metrics.gap)
                boxes[position] = Box(at, across, metrics.along, metrics.across)
                row_of[position] = row
            along += length + metrics.panel_gap
    edge = metrics.margin + metrics.outside[0] + frame
    second = frame + metrics.outside[1] if len(rows) > 1 else 0
    depth = edge + channel + second + metrics.margin
    return Layout(
        metrics=metrics,
        boxes=boxes,
        rows=row_of,
        panels=tuple(panels),
        channel=(edge, edge + channel),
        length=longest + 2 * metrics.margin,
        depth=depth,
    )


def _group(numa: Sequence[int | None]) -> list[tuple[int | None, list[int]]]:
    """Return each NUMA node's positions; one alone is cut in two when a screen is too small."""
    members: dict[int | None, list[int]] = {}
    for position, number in enumerate(numa):
        members.setdefault(number, []).append(position)
    groups = sorted(members.items(), key=lambda item: (item[0] is None, item[0] or 0))
    if len(groups) == 1 and len(numa) > 4:
        number, positions = groups[0]
        half = (len(positions) + 1) // 2
        return [(number, positions[:half]), (number, positions[half:])]
    return groups


def _length(count: int, metrics: Metrics) -> float:
    boxes = count * metrics.along + (count - 1) * metrics.gap
    return metrics.pad_start + boxes + metrics.pad_end
