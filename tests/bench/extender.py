"""The extender's verbs by size of the cluster, and filter beside a handler that echoes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from tests.bench.extender_world import (
    NAMESPACE,
    Caller,
    ExtenderWorld,
    asked_pod,
    filter_body,
    start_echo,
)
from tests.bench.fleet import node
from tests.bench.growth import growth_row
from tests.bench.rows import Row, percentile
from tests.bench.watching import relist_seconds, time_node_events
from topology.model import NodeTopology

_TABLE: Final = "The extender's filter, beside a handler that echoes"
_VERBS: Final = "The extender's other verbs"


class Figures(NamedTuple):
    """What was measured on one size.

    Milliseconds of calls, filter's first, which makes tables, apart; MiB at rest; milliseconds of
    a complete relist; microseconds of CPU for an event.
    """

    first: float
    filter: list[float]
    echo: list[float]
    prioritize: list[float]
    bind: list[float]
    mib: float
    relist: float
    event: float


def measure(*, quick: bool, topology: NodeTopology) -> Iterator[Row]:
    """Time calls on clusters of several sizes, alternating with echoes of the same bytes."""
    sizes = (500, 1500, 5000, 15000) if quick else (500, 1500, 5000, 15000, 50000)
    all_figures = []
    for size in sizes:
        figures = _measure_size(size, 60 if quick else 300, topology)
        all_figures.append(figures)
        yield from _show_size(size, figures)
    series = {
        "filter, p50": ([percentile(one.filter, 50) for one in all_figures], "ms"),
        "prioritize, p50": ([percentile(one.prioritize, 50) for one in all_figures], "ms"),
        "bind, p50": ([percentile(one.bind, 50) for one in all_figures], "ms"),
        "an event of a node, CPU": ([one.event for one in all_figures], "us"),
        "a relist, until it is heard": ([one.relist for one in all_figures], "ms"),
        "the extender's memory": ([one.mib for one in all_figures], "MiB"),
    }
    for what, (values, unit) in series.items():
        yield growth_row(what, sizes, values, unit)
    yield Row(
        table=_TABLE,
        name="memory for each node, between the smallest and the largest",
        ours=(all_figures[-1].mib - all_figures[0].mib) * 1024 / (sizes[-1] - sizes[0]),
        unit="KiB",
    )


def _show_size(size: int, figures: Figures) -> Iterator[Row]:
    for percent in (50, 99):
        yield Row(
            table=_TABLE,
            name=f"{size:,} names, p{percent}",
            ours=percentile(figures.filter, percent),
            other=percentile(figures.echo, percent),
            unit="ms",
        )
    yield Row(table=_TABLE, name=f"{size:,} names, the first call", ours=figures.first, unit="ms")
    yield Row(
        table=_TABLE,
        name=f"{size:,} names, p50 for each 1,000 of them",
        ours=percentile(figures.filter, 50) / size * 1000,
        unit="ms",
    )
    yield Row(table=_TABLE, name=f"{size:,} nodes, memory at rest", ours=figures.mib, unit="MiB")
    for verb, times in (("prioritize", figures.prioritize), ("bind", figures.bind)):
        yield Row(
            table=_VERBS,
            name=f"{verb}, {size:,} nodes, p50",
            ours=percentile(times, 50),
            unit="ms",
            note="the embedded API server's part is in it" if verb == "bind" else "",
        )


def _measure_size(size: int, calls: int, topology: NodeTopology) -> Figures:
    names = [f"n{number:05}" for number in range(size)]
    echo, echo_port = start_echo()
    try:
        with ExtenderWorld(node(name, topology) for name in names) as world:
            mib = world.resident_mib()
            first = world.caller.time("filter", filter_body("first", names))[0]
            ours, other = _time_filters(world.caller, Caller(echo_port), names, calls)
            prioritize, bind = _time_others(world, names, calls // 3)
            event = time_node_events(world, names, topology, 5000).cpu_us
            relist = min(relist_seconds(world, topology) for _ in range(3))
            return Figures(first, ours, other, prioritize, bind, mib, 1000 * relist, event)
    finally:
        echo.stop()


def _time_filters(
    ours: Caller, echo: Caller, names: list[str], calls: int
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls):
        body = filter_body(f"p{number}", names)
        for caller, taken in zip((ours, echo), times, strict=True):
            milliseconds, content = caller.time("filter", body)
            taken.append(milliseconds)
            assert msgspec.json.decode(content)["NodeNames"], content[:300]
    return times


def _time_others(
    world: ExtenderWorld, names: list[str], calls: int
) -> tuple[list[float], list[float]]:
    """Time prioritize of pods that no filter has planned, and bind of pods that one has."""
    prioritize, bind = [], []
    for number in range(calls):
        body = filter_body(f"s{number}", names)
        prioritize.append(world.caller.time("prioritize", body)[0])
        name = f"b{number}"
        asked = asked_pod(name)
        world.api.store.write("pods", asked)
        (chosen, *_) = world.caller.call("filter", filter_body(name, names))["NodeNames"]
        told = {"PodName": name, "PodNamespace": NAMESPACE, "PodUID": name, "Node": chosen}
        taken, content = world.caller.time("bind", msgspec.json.encode(told))
        assert not msgspec.json.decode(content)["Error"], content[:300]
        bind.append(taken)
    return prioritize, bind
