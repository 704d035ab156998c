"""Answers of the API -> what the pages show: pictures, colours and sentences. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec
from markupsafe import Markup

from scheduler.dashboard.charts import Line, Part, columns_of, draw_bar, draw_heat_map, draw_lines
from scheduler.dashboard.history import History
from scheduler.dashboard.machine import colours_of, gpu_class
from scheduler.explain.fleet_shapes import ClusterAnswer, NodeGpu, NodeLine
from scheduler.explain.shapes import DecisionAnswer, NodeScore, PodAnswer

STRATEGY_COLOURS: Final = 8
STEPS: Final = 4
"""A measure of a node is shown in so many steps, and one more for nothing at all."""

SIZES: Final = (2, 4, 8)
"""The set sizes whose best bandwidth is followed."""

Measure = Callable[[NodeLine], float | None]


class Shade(msgspec.Struct, frozen=True):
    """A way to colour the heat map: what it is called, and what its two ends mean."""

    name: str
    title: str
    low: str
    high: str
    measure: Measure


def _free(node: NodeLine) -> float | None:
    return node.free_share / node.gpus if node.gpus else None


def _wasted(node: NodeLine) -> float | None:
    return None if node.wasted is None or not node.gpus else node.wasted / node.gpus


def _ill(node: NodeLine) -> float | None:
    return (node.gpus - node.healthy) / node.gpus if node.gpus else None


SHADES: Final = {
    shade.name: shade
    for shade in (
        Shade("free", "Free GPUs", "full", "empty", _free),
        Shade("loss", "Link loss", "links intact", "links torn apart", lambda node: node.link_loss),
        Shade("wasted", "Wasted GPUs", "all of use", "of no use", _wasted),
        Shade("load", "Load", "idle", "busy", lambda node: node.load),
        Shade("ill", "Unhealthy GPUs", "all well", "all ill", _ill),
    )
}


class Tile(msgspec.Struct, frozen=True):
    """A node of the cluster's picture, GPU by GPU."""

    node: NodeLine
    cells: tuple[tuple[str, str], ...]
    colour: str


def shade_of(node: NodeLine, shade: Shade) -> str:
    """Return the class of a node's colour: a step, unknown, or held back."""
    value = shade.measure(node) if node.known else None
    if value is None:
        return "unknown"
    step = 0 if value <= 0 else min(STEPS, 1 + int(value * STEPS * 0.9999))
    return f"step{step} back" if node.held_back else f"step{step}"


def show_heat_map(nodes: Sequence[NodeLine], shade: Shade) -> Markup:
    """Draw all nodes by one measure."""
    label = f"{len(nodes)} nodes by {shade.title.lower()}; the list of nodes tells the same in text"
    return draw_heat_map([shade_of(node, shade) for node in nodes], label)


def heat_data(nodes: Sequence[NodeLine]) -> dict[str, object]:
    """Return what the script needs to say which node the pointer is on."""
    return {
        "columns": columns_of(len(nodes)),
        "names": [node.node for node in nodes],
        "free": [node.free for node in nodes],
        "gpus": [node.gpus for node in nodes],
    }


def show_tile(node: NodeLine, gpus: Sequence[NodeGpu], shade: Shade) -> Tile:
    """Show a node GPU by GPU: who shares a pod shares a colour."""
    colours = colours_of(gpus)
    cells = tuple((gpu_class(gpu, colours), _say(gpu)) for gpu in gpus)
    return Tile(node, cells, shade_of(node, shade))


def _say(gpu: NodeGpu) -> str:
    if not gpu.healthy:
        return f"GPU {gpu.index}: {gpu.problem or 'unhealthy'}"
    names = ", ".join(one.pod or one.uid for one in gpu.holders)
    return f"GPU {gpu.index}: {names or 'free'}"


def show_usage(cluster: ClusterAnswer) -> Markup:
    """Draw how the GPUs are used: held, free and of use, free and of none, ill."""
    ill = cluster.gpus - cluster.healthy
    wasted = cluster.wasted_pct * cluster.gpus / 100
    free = cluster.unallocated_pct * cluster.gpus / 100
    held = max(0.0, cluster.gpus - free - ill)
    parts = (
        Part("use-held", held, f"{held:.0f} held"),
        Part("use-free", max(0.0, free - wasted), f"{max(0.0, free - wasted):.0f} free"),
        Part("use-wasted", wasted, f"{wasted:.1f} free, of no use to the pods expected"),
        Part("use-ill", ill, f"{ill} not healthy"),
    )
    said = "; ".join(part.label for part in parts)
    return draw_bar(parts, f"Of {cluster.gpus} GPUs: {said}", whole=max(1, cluster.gpus))


def show_fragmentation(history: History, window: str) -> Markup:
    """Draw what is free, what of it is of no use, and what links are lost, in percent."""
    lines = (
        Line("free", "l0", history.points("unallocated", window)),
        Line("free, of no use", "l1", history.points("wasted", window)),
        Line("link loss", "l2", history.points("loss", window)),
    )
    return draw_lines(lines, _said("Percent over time", lines, "%"), unit="%", least=5)


def show_bandwidth(history: History, window: str) -> Markup:
    """Draw the best bandwidth to be had by size, and that of the sets that were given."""
    lines = (
        *(
            Line(f"best of {size}", f"l{place}", history.points(f"best {size}", window))
            for place, size in enumerate(SIZES)
        ),
        Line("given", "l3", history.points("placed", window), dots=True),
    )
    return draw_lines(lines, _said("Bus bandwidth over time", lines, "GB/s"), unit="GB/s", least=10)


def _said(what: str, lines: Sequence[Line], unit: str) -> str:
    latest = []
    for line in lines:
        known = [value for _, value in line.points if value is not None]
        if known:
            latest.append(f"{line.name} {known[-1]:.1f} {unit}")
    return f"{what}. Last: {', '.join(latest)}" if latest else f"{what}. Nothing yet"


def strategy_colours(decision: DecisionAnswer) -> dict[str, str]:
    """Return the class of each strategy's colour."""
    return {
        one.strategy: f"s{place % STRATEGY_COLOURS}"
        for place, one in enumerate(decision.strategies)
    }


def show_score(score: NodeScore, colours: Mapping[str, str]) -> Markup:
    """Draw what a node's score is made of; a full bar is 100."""
    parts = [
        Part(colours.get(one.strategy, "s0"), one.weighted, f"{one.strategy}: {one.weighted:.1f}")
        for one in score.strategies
    ]
    said = ", ".join(part.label for part in parts)
    return draw_bar(parts, f"{score.node}: {score.score:.1f} of 100; {said}")


def summarise(pod: PodAnswer) -> str:
    """Say in one sentence what became of a pod."""
    decision = pod.decision
    if pod.binding is not None:
        count = sum(len(uuids) for uuids in pod.binding.containers.values())
        text = f"It runs on {pod.binding.node}"
        if count:
            text += f" with {count_of(count, 'GPU')}"
        if pod.binding.bus_bandwidth_gbs > 0:
            text += f", which reach each other at {pod.binding.bus_bandwidth_gbs:.0f} GB/s"
        if decision is not None:
            text += (
                f"; {decision.accepted} of {count_of(decision.considered, 'node')} would have done"
            )
        return text + "."
    if pod.outcome == "planned" and decision is not None and decision.options:
        return f"It is planned on {decision.options[0].node}; its bind has not come yet."
    return f"It waits: {pod.reason}" if pod.reason else "It waits."


def count_of(count: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ago(text: str, now: float) -> str:
    """Say how long ago a time of the API was; "" if it is not known."""
    if not text:
        return ""
    seconds = max(0.0, now - datetime.fromisoformat(text).timestamp())
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.1f} h ago"
