"""A machine as a picture: GPUs and who holds them, NVLinks, NVSwitches, NUMA nodes, NICs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from scheduler.dashboard.layout import LYING, STANDING, Box, Layout, Metrics, lay_out
from scheduler.dashboard.svg import Value, element, image, number, title
from scheduler.explain.shapes import NicAnswer, NodeAnswer, NodeGpu

HOLDER_COLOURS: Final = 8
"""Pods on one node are told apart by so many colours, and by their names."""

_NEAR: Final = ("PIX", "PXB", "PHB")
"""Levels at which a NIC is drawn beside its GPUs: below the CPU's own interconnect."""

_NAME: Final = 13
_NAMES_A_PILL: Final = 2
_BAR: Final = 26


class Drawing(msgspec.Struct, frozen=True):
    """The picture lying and standing: the style sheet shows the one that fits the screen."""

    lying: Markup
    standing: Markup


def draw_machine(
    node: NodeAnswer, *, chosen: Collection[int] = (), links: Mapping[str, str] | None = None
) -> Drawing:
    """Draw a node. `chosen` positions stand out; `links` are addresses by pod."""
    label = describe(node)
    numa = [gpu.numa_node for gpu in node.gpus]
    pictures = [
        _draw(node, lay_out(numa, _channel(node, metrics), metrics), label, chosen, links or {})
        for metrics in (_trim(LYING, node), STANDING)
    ]
    return Drawing(*pictures)


def describe(node: NodeAnswer) -> str:
    """Say in one line what the picture shows."""
    free = sum(not gpu.holders and gpu.healthy for gpu in node.gpus)
    ill = sum(not gpu.healthy for gpu in node.gpus)
    pods = len({_key(gpu) for gpu in node.gpus if gpu.holders})
    text = f"{node.node}: {len(node.gpus)} GPUs, {free} free, held by {pods} pods"
    return f"{text}, {ill} not healthy" if ill else text


def colours_of(gpus: Sequence[NodeGpu]) -> dict[str, int]:
    """Give each pod that holds GPUs the number of its colour.

    Sets come first, so that their colours differ where there are more pods than colours.
    """
    held: dict[str, int] = {}
    for gpu in gpus:
        if gpu.holders:
            held[_key(gpu)] = held.get(_key(gpu), 0) + 1
    order = sorted(held, key=lambda who: held[who] == 1)
    return {who: place % HOLDER_COLOURS for place, who in enumerate(order)}


def gpu_class(gpu: NodeGpu, colours: Mapping[str, int]) -> str:
    """Return the classes that a GPU's state gives it."""
    if not gpu.healthy:
        return "ill"
    if not gpu.holders:
        return "free"
    planned = " planned" if gpu.holders[0].how in {"held", "reserved"} else ""
    return f"held c{colours[_key(gpu)]}{planned}"


def _key(gpu: NodeGpu) -> str:
    return gpu.holders[0].pod or gpu.holders[0].uid


def _channel(node: NodeAnswer, metrics: Metrics) -> float:
    """Return how deep the channel is that the node's links want."""
    switches = {gpu.switch for gpu in node.gpus if gpu.switch is not None}
    if switches:
        return 70 + (_BAR + 12) * (len(switches) - 1) + (20 if metrics.standing else 30)
    if any(one.link.startswith("NV") for one in node.links):
        return 96 if metrics.standing else 130
    return 28


def _trim(metrics: Metrics, node: NodeAnswer) -> Metrics:
    """Leave out the room for NICs where none is near a GPU."""
    near = any(level in _NEAR for nic in node.nics for level in nic.gpus)
    return metrics if near else msgspec.structs.replace(metrics, outside=0)


def _draw(
    node: NodeAnswer,
    layout: Layout,
    label: str,
    chosen: Collection[int],
    links: Mapping[str, str],
) -> Markup:
    width, height = layout.point(layout.length, layout.depth)
    colours = colours_of(node.gpus)
    drawn = [
        *(_draw_panel(layout, panel.number, panel.row, panel.box) for panel in layout.panels),
        *_draw_switches(node, layout, chosen),
        *_draw_nvlinks(node, layout, chosen),
        *_draw_nics(node, layout),
        *(_draw_gpu(gpu, layout, colours, chosen, links) for gpu in node.gpus),
    ]
    kind = "standing" if layout.metrics.standing else "lying"
    picked = " picked" if chosen else ""
    # A picture with links in it is a group: what it holds can be reached.
    return image(width, height, label, *drawn, class_=f"machine {kind}{picked}", role="group")


def _draw_panel(layout: Layout, number_: int | None, row: int, box: Box) -> Markup:
    place = layout.rectangle(box)
    below = row == 1 and not layout.metrics.standing
    name = "NUMA unknown" if number_ is None else f"NUMA {number_}"
    y = place["y"] + (place["height"] - 9 if below else 17)
    return element(
        "g",
        element("rect", class_="numa", rx=10, **place),
        element("text", name, class_="label", x=place["x"] + 12, y=y),
    )


def _draw_gpu(
    gpu: NodeGpu,
    layout: Layout,
    colours: Mapping[str, int],
    chosen: Collection[int],
    links: Mapping[str, str],
) -> Markup:
    place = layout.rectangle(layout.boxes[gpu.position])
    picked = " chosen" if gpu.position in chosen else ""
    text, full = _state(gpu)
    x, y = place["x"] + 10, place["y"]
    drawn = element(
        "g",
        title(f"GPU {gpu.index}, {gpu.model}: {full}"),
        element("rect", rx=7, **place),
        element("text", f"GPU {gpu.index}", class_="name", x=x, y=y + place["height"] / 2 - 5),
        element("text", text, class_="holder", x=x, y=y + place["height"] / 2 + 14),
        class_=f"gpu {gpu_class(gpu, colours)}{picked}",
    )
    address = links.get(_key(gpu)) if gpu.holders else None
    return drawn if address is None else element("a", drawn, href=address)


def _state(gpu: NodeGpu) -> tuple[str, str]:
    """Say who has it, in a box's width and in full."""
    if not gpu.healthy:
        return "✕ " + _shorten(gpu.problem or "unhealthy", _NAME - 2), gpu.problem or "unhealthy"
    if not gpu.holders:
        return "free", "free"
    names = [one.pod or f"pod {one.uid}" for one in gpu.holders]
    how = {"held": "planned for ", "reserved": "being bound to "}.get(
        gpu.holders[0].how, "held by "
    )
    full = how + ", ".join(names)
    if len(names) > 1:
        return f"{len(names)} pods", full
    return _shorten(names[0].partition("/")[2] or names[0], _NAME), full


def _shorten(text: str, most: int) -> str:
    # The end of a pod's name tells pods apart, its beginning seldom does.
    return text if len(text) <= most else "…" + text[1 - most :]


def _draw_switches(node: NodeAnswer, layout: Layout, chosen: Collection[int]) -> list[Markup]:
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
                _line(layout, (along, start), (along, end), f"nv{_on(chosen, position)}", 4)
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


def _draw_nvlinks(node: NodeAnswer, layout: Layout, chosen: Collection[int]) -> list[Markup]:
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


def _draw_nics(node: NodeAnswer, layout: Layout) -> list[Markup]:
    """Draw NICs outside their GPUs; a phone has no room for them and reads them in the table."""
    if not layout.metrics.outside:
        return []
    groups: dict[tuple[str, tuple[int, ...]], list[NicAnswer]] = {}
    for nic in node.nics:
        level = min(nic.gpus, key=_rank, default="SYS")
        if level in _NEAR:
            near = [place for place, one in enumerate(nic.gpus) if one == level]
            for row in sorted({layout.rows[place] for place in near}):
                of_row = tuple(place for place in near if layout.rows[place] == row)
                groups.setdefault((level, of_row), []).append(nic)
    taken: dict[tuple[int, float], int] = {}
    drawn: list[Markup] = []
    for (level, gpus), nics in groups.items():
        row = layout.rows[gpus[0]]
        middle = sum(layout.boxes[place].middle for place in gpus) / len(gpus)
        shift = taken.get((row, middle), 0)
        taken[row, middle] = shift + 1
        drawn += _draw_pill(layout, level, gpus, [nic.name for nic in nics], middle + shift * 60)
    return drawn


def _draw_pill(
    layout: Layout, level: str, gpus: Sequence[int], names: Sequence[str], middle: float
) -> list[Markup]:
    row = layout.rows[gpus[0]]
    shown = [*names[:_NAMES_A_PILL]]
    if len(names) > _NAMES_A_PILL:
        shown[-1] = f"{shown[-1]} +{len(names) - _NAMES_A_PILL}"
    deep = 12 + 13 * len(shown)
    wide = max(58, 16 + 6.6 * max(map(len, shown)))
    edge = layout.metrics.margin + layout.metrics.outside
    across = edge - 12 - deep if row == 0 else layout.depth - edge + 12
    near = across + deep if row == 0 else across
    lines = [
        _line(
            layout,
            (layout.boxes[place].middle, layout.outer(place)[1]),
            (middle, near),
            "pcie",
            1.5,
        )
        for place in gpus
    ]
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


def _rank(level: str) -> int:
    order = ("PIX", "PXB", "PHB", "NODE", "SYS")
    return order.index(level) if level in order else len(order)


def _line(
    layout: Layout,
    start: tuple[float, float],
    end: tuple[float, float],
    kind: str,
    width: float,
) -> Markup:
    (x1, y1), (x2, y2) = layout.point(*start), layout.point(*end)
    return element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width)


def matrix(node: NodeAnswer) -> list[list[str]]:
    """Return the links as a square of cells, for who reads rather than looks."""
    cells = [["—"] * len(node.gpus) for _ in node.gpus]
    for link in node.links:
        i, j = link.gpus
        cells[i][j] = cells[j][i] = link.link
    return cells
