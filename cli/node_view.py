"""A node drawn as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cli.node_reading import NodeView
from topology.drawing import draw_matrix
from topology.matrix import index_order
from topology.model import NodeTopology


def draw(view: NodeView) -> str:
    """Return the matrix, then a line for each GPU, then what happened last."""
    return "\n".join(_lines(view))


def _lines(view: NodeView) -> Iterator[str]:
    topology = view.topology
    count = 0 if topology is None else len(topology.gpus)
    driver = f", driver {view.driver}" if view.driver else ""
    yield f"{view.node}: {count} GPUs, {len(view.holders)} with pods{driver}"
    if view.problem:
        yield f"not ready: {view.problem}"
    if topology is None:
        return
    yield ""
    yield draw_matrix(topology)
    yield ""
    yield from _align(_table(view, topology))
    if view.news:
        yield ""
        yield from (f"{one.at}  {one.what}" for one in view.news)


def _table(view: NodeView, topology: NodeTopology) -> Iterator[Sequence[str]]:
    yield ("GPU", "uuid", "model", "health", "since", "pods")
    for at in index_order(topology):
        gpu = topology.gpus[at]
        condition = view.conditions.get(gpu.uuid)
        health = "well" if condition is None else f"{condition.status}: {condition.why}"
        withheld = view.withheld.get(gpu.uuid)
        if withheld and condition is None:
            health = withheld
        parts = view.parts.get(gpu.uuid)
        if parts:
            health += f"; MIG {', '.join(parts)}"
        yield (
            str(gpu.index),
            gpu.uuid,
            gpu.model,
            health,
            "" if condition is None else condition.since,
            ", ".join(view.holders.get(gpu.uuid, ("-",))),
        )


def _align(rows: Iterator[Sequence[str]]) -> Iterator[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
