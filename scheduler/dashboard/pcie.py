"""What hangs below a CPU together: PCIe switches as brackets along GPUs, NICs as pills beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from scheduler.dashboard.layout import Box, Layout, Metrics
from scheduler.dashboard.strokes import draw_line, write_point
from scheduler.dashboard.svg import element, title
from scheduler.explain.fleet_shapes import NicAnswer, NodeAnswer

_NEAR: Final = ("PIX", "PXB", "PHB")
"""Levels at which a NIC is drawn beside its GPUs: below the CPU's own interconnect."""

_NAMES_A_PILL: Final = 2
_BRACKET: Final = 8


def draw_brackets(node: NodeAnswer, layout: Layout) -> list[Markup]:
    """Draw what PCIe switches join: a line along the side that faces away from the channel."""
    drawn: list[Markup] = []
    for level, members in pcie_groups(node):
        for row in (0, 1):
            of_row = [place for place in members if layout.rows[place] == row]
            if len(of_row) < 2:
                continue
            away = -_BRACKET if row == 0 else _BRACKET
            ends = [layout.outer(place) for place in of_row]
            path = "".join(
                f"M{write_point(layout, along, across)}L{write_point(layout, along, across + away)}"
                for along, across in ends
            )
            (first, across), (last, _) = min(ends), max(ends)
            side = across + away
            path += f"M{write_point(layout, first, side)}L{write_point(layout, last, side)}"
            names = ", ".join(f"GPU {node.gpus[place].index}" for place in of_row)
            drawn.append(
                element("path", title(f"{names}: {level}"), class_="pcie", d=path, stroke_width=1.5)
            )
    return drawn


def pcie_groups(node: NodeAnswer) -> list[tuple[str, list[int]]]:
    """Return the GPUs that hang on one PCIe switch (PIX), as far as NVLinks do not hide it."""
    group = list(range(len(node.gpus)))
    for one in node.links:
        if one.link == "PIX":
            i, j = (group[place] for place in one.gpus)
            group = [i if at == j else at for at in group]
    members: dict[int, list[int]] = {}
    for place, at in enumerate(group):
        members.setdefault(at, []).append(place)
    return [("PIX", one) for one in members.values() if len(one) > 1]


def draw_nics(node: NodeAnswer, layout: Layout) -> list[Markup]:
    """Draw NICs outside their GPUs; a phone has no room for them and reads them in the table."""
    if layout.metrics.standing:
        return []
    joined = {tuple(members) for _, members in pcie_groups(node)}
    groups: dict[tuple[int, ...], list[NicAnswer]] = {}
    for nic, near in nics_near(node):
        for row in sorted({layout.rows[place] for place in near}):
            of_row = tuple(place for place in near if layout.rows[place] == row)
            groups.setdefault(of_row, []).append(nic)
    taken: dict[tuple[int, float], int] = {}
    drawn: list[Markup] = []
    for gpus, nics in groups.items():
        row = layout.rows[gpus[0]]
        middle = sum(layout.boxes[place].middle for place in gpus) / len(gpus)
        shift = taken.get((row, middle), 0)
        taken[row, middle] = shift + 1
        ends = [layout.outer(place) for place in gpus]
        if gpus in joined:
            ends = [(middle, ends[0][1] + (-_BRACKET if row == 0 else _BRACKET))]
        level = nics[0].gpus[gpus[0]]
        names = [nic.name for nic in nics]
        drawn += _draw_pill(layout, row, ends, names, level=level, middle=middle + shift * 60)
    return drawn


def _draw_pill(
    layout: Layout,
    row: int,
    ends: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    level: str,
    middle: float,
) -> list[Markup]:
    shown = [*names[:_NAMES_A_PILL]]
    if len(names) > _NAMES_A_PILL:
        shown[-1] = f"{shown[-1]} +{len(names) - _NAMES_A_PILL}"
    deep = 12 + 13 * len(shown)
    wide = max(58, 16 + 6.6 * max(map(len, shown)))
    edge = layout.metrics.margin + layout.metrics.outside[row]
    across = edge - 12 - deep if row == 0 else layout.depth - edge + 12
    near = across + deep if row == 0 else across
    lines = [draw_line(layout, end, (middle, near), "pcie", 1.5) for end in ends]
    place = layout.rectangle(Box(middle - wide / 2, across, wide, deep))
    texts = [
        element("text", name, x=middle, y=place["y"] + 16 + 13 * line, text_anchor="middle")
        for line, name in enumerate(shown)
    ]
    return [
        *lines,
        element(
            "g",
            title(f"{', '.join(names)}: {level}"),
            element("rect", rx=6, **place),
            *texts,
            class_="nic",
        ),
    ]


def nics_near(node: NodeAnswer) -> list[tuple[NicAnswer, tuple[int, ...]]]:
    """Return the NICs that hang below a CPU together with GPUs, and the nearest of those."""
    found = []
    for nic in node.nics:
        level = min(nic.gpus, key=_rank, default="SYS")
        if level in _NEAR:
            found.append((nic, tuple(at for at, one in enumerate(nic.gpus) if one == level)))
    return found


def _rank(level: str) -> int:
    order = ("PIX", "PXB", "PHB", "NODE", "SYS")
    return order.index(level) if level in order else len(order)


def trim(metrics: Metrics, node: NodeAnswer, rows: Mapping[int, int]) -> Metrics:
    """Leave out the room for NICs beyond a row that none is near to."""
    wanted = {rows[place] for _, places in nics_near(node) for place in places}
    first, second = metrics.outside
    return msgspec.structs.replace(
        metrics, outside=(first if 0 in wanted else 0, second if 1 in wanted else 0)
    )
