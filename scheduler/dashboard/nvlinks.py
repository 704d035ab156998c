"""NVSwitches as bars in the channel, direct NVLinks as curves through it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from markupsafe import Markup

from scheduler.dashboard.layout import Box, Layout, Metrics
from scheduler.dashboard.strokes import draw_line
from scheduler.dashboard.svg import Value, element, number, title
from scheduler.explain.fleet_shapes import NodeAnswer

_BAR: Final = 26
"""How deep an NVSwitch's bar is, in pixels."""


def draw_switches(node: NodeAnswer, layout: Layout, chosen: Collection[int]) -> list[Markup]:
    """Draw each NVSwitch group as a bar that its GPUs hang on; `chosen` ones stand out."""
    groups: dict[int, list[int]] = {}
    for gpu in node.gpus:
        if gpu.switch is not None:
            groups.setdefault(gpu.switch, []).append(gpu.position)
    drawn: list[Markup] = []
    top, bottom = layout.channel
    middle = (top + bottom) / 2
    for place, (group, members) in enumerate(sorted(groups.items())):
        across = middle + (place - (len(groups) - 1) / 2) * (_BAR + 12) - _BAR / 2
        first = min(layout.boxes[position].along for position in members)
        last = max(layout.boxes[position].along + layout.metrics.along for position in members)
        bar = Box(first, across, last - first, _BAR)
        for position in members:
            along, start = layout.inner(position)
            end = across + (0 if layout.rows[position] == 0 else _BAR)
            drawn.append(
                draw_line(layout, (along, start), (along, end), f"nv{_on(chosen, position)}", 4)
            )
        drawn.append(_draw_bar(layout, bar, _switch_name(node, group, members, len(groups))))
    return drawn


def _draw_bar(layout: Layout, bar: Box, name: str) -> Markup:
    place = layout.rectangle(bar)
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    turned: dict[str, Value] = {"x": x, "y": y + 4}
    if layout.metrics.standing:
        turned = {"transform": f"translate({number(x + 4)} {number(y)}) rotate(-90)"}
    return element(
        "g",
        element("rect", class_="switch", rx=6, **place),
        element("text", name, class_="bar-name", text_anchor="middle", **turned),
    )


def _switch_name(node: NodeAnswer, group: int, members: Sequence[int], groups: int) -> str:
    inside = set(members)
    counts = {one.link for one in node.links if inside.issuperset(one.gpus)}
    name = "NVSwitch" if groups == 1 else f"NVSwitch {group}"
    widths = sorted(link.removeprefix("NV") for link in counts if link.startswith("NV"))
    return f"{name} · {'/'.join(widths)} NVLinks a GPU" if widths else name


def draw_nvlinks(node: NodeAnswer, layout: Layout, chosen: Collection[int]) -> list[Markup]:
    """Draw direct NVLinks as curves through the channel, as wide as they have links."""
    switch = {gpu.position: gpu.switch for gpu in node.gpus}
    pairs = [
        (one.gpus, int(one.link[2:]))
        for one in node.links
        if one.link.startswith("NV")
        and (switch[one.gpus[0]] is None or switch[one.gpus[0]] != switch[one.gpus[1]])
    ]
    ports = _ports(layout, [pair for pair, _ in pairs])
    top, bottom = layout.channel
    depth = bottom - top
    drawn = []
    for (i, j), count in pairs:
        (a1, c1), (a2, c2) = ports[i, j], ports[j, i]
        if layout.rows[i] == layout.rows[j]:
            reach = min(depth - 14, 22 + abs(a1 - a2) * 0.22)
            bend = reach * (1 if layout.rows[i] == 0 else -1) * 4 / 3
            handles = (a1, c1 + bend), (a2, c2 + bend)
        else:
            handles = (a1, (c1 + c2) / 2), (a2, (c1 + c2) / 2)
        points = [layout.point(*one) for one in ((a1, c1), *handles, (a2, c2))]
        (x1, y1), (x2, y2), (x3, y3), (x4, y4) = points
        path = " ".join(map(number, (x2, y2, x3, y3, x4, y4)))
        names = f"GPU {node.gpus[i].index} – GPU {node.gpus[j].index}"
        drawn.append(
            element(
                "path",
                title(f"{names}: {count} NVLinks"),
                class_=f"nv{_on(chosen, i, j)}",
                d=f"M{number(x1)} {number(y1)}C{path}",
                stroke_width=min(1.2 + count * 0.8, 6),
            )
        )
    return drawn


def _ports(
    layout: Layout, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Spread the ends of links over each GPU's side, in the order of where they lead."""
    partners: dict[int, list[int]] = {}
    for i, j in pairs:
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    found = {}
    for position, others in partners.items():
        along, across = layout.inner(position)
        others.sort(key=lambda other: layout.boxes[other].along)
        for place, other in enumerate(others):
            share = (place + 1) / (len(others) + 1) - 0.5
            found[position, other] = along + share * layout.metrics.along * 0.8, across
    return found


def _on(chosen: Collection[int], *positions: int) -> str:
    return " on" if chosen and all(position in chosen for position in positions) else ""


def channel_depth(node: NodeAnswer, metrics: Metrics) -> float:
    """Return how deep the channel is that the node's links want."""
    switches = {gpu.switch for gpu in node.gpus if gpu.switch is not None}
    if switches:
        return 70 + (_BAR + 12) * (len(switches) - 1) + (20 if metrics.standing else 30)
    if any(one.link.startswith("NV") for one in node.links):
        return 96 if metrics.standing else 130
    return 28
