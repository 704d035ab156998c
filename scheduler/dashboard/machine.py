"""A machine as a picture: GPUs and who holds them, NVLinks, NVSwitches, NUMA nodes, NICs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from scheduler.dashboard.layout import LYING, STANDING, Box, Layout, lay_out
from scheduler.dashboard.nvlinks import channel_depth, draw_nvlinks, draw_switches
from scheduler.dashboard.pcie import draw_brackets, draw_nics, trim
from scheduler.dashboard.svg import element, image, title
from scheduler.explain.fleet_shapes import NodeAnswer, NodeGpu

HOLDER_COLOURS: Final = 8
"""Pods on one node are told apart by so many colours, and by their names."""

_NAME: Final = 13
_SCALE: Final = 1.15


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
    lying = trim(LYING, node, lay_out(numa, 0, LYING).rows)
    layouts = [
        lay_out(numa, channel_depth(node, metrics), metrics) for metrics in (lying, STANDING)
    ]
    return Drawing(*(_draw(node, layout, label, chosen, links or {}) for layout in layouts))


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
        *draw_switches(node, layout, chosen),
        *draw_nvlinks(node, layout, chosen),
        *draw_brackets(node, layout),
        *draw_nics(node, layout),
        *(_draw_gpu(gpu, layout, colours, chosen, links) for gpu in node.gpus),
    ]
    kind = "standing" if layout.metrics.standing else "lying"
    picked = " picked" if chosen else ""
    return image(
        width,
        height,
        label,
        *drawn,
        class_=f"machine {kind}{picked}",
        # A picture with links in it is a group: what it holds can be reached.
        role="group",
        # Never larger than this: a machine of two GPUs does not fill the screen.
        width=width * _SCALE,
    )


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
        problem = gpu.problem or "unhealthy"
        short = problem if len(problem) < _NAME else problem[: _NAME - 2] + "…"
        return f"✕ {short}", problem
    if not gpu.holders:
        return "free", "free"
    names = [one.pod or f"pod {one.uid}" for one in gpu.holders]
    how = {"held": "planned for ", "reserved": "being bound to "}.get(
        gpu.holders[0].how, "held by "
    )
    full = how + ", ".join(names)
    if len(names) > 1:
        return f"{len(names)} pods", full
    return _shorten(names[0].partition("/")[2] or names[0]), full


def _shorten(name: str) -> str:
    # The end of a pod's name tells pods apart, its beginning seldom does.
    return name if len(name) <= _NAME else "…" + name[1 - _NAME :]


def matrix(node: NodeAnswer) -> list[list[str]]:
    """Return the links as a square of cells, for who reads rather than looks."""
    cells = [["—"] * len(node.gpus) for _ in node.gpus]
    for link in node.links:
        i, j = link.gpus
        cells[i][j] = cells[j][i] = link.link
    return cells
