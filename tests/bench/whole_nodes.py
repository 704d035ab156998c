"""filter as it is asked without nodeCacheCapable: whole Nodes in, whole Nodes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from tests.bench.bodies import kubelet_node
from tests.bench.extender_world import Caller, ExtenderWorld, asked_pod, filter_body, start_echo
from tests.bench.rows import Row, percentile
from topology.model import NodeTopology

_TABLE: Final = "filter with whole Nodes (nodeCacheCapable: false), beside a handler that echoes"


def measure(*, quick: bool, topology: NodeTopology) -> Iterator[Row]:
    """Time filter with whole Nodes, with an echo of the same bytes and with names, in turns."""
    for size, calls in ((500, 20), (5000, 5)) if quick else ((500, 100), (5000, 30)):
        yield from _measure_size(size, calls, topology)


def _measure_size(size: int, calls: int, topology: NodeTopology) -> Iterator[Row]:
    names = [f"n{number:05}" for number in range(size)]
    nodes = [kubelet_node(name, topology) for name in names]
    raw = msgspec.Raw(msgspec.json.encode({"items": nodes}))
    whole: list[float] = []
    echoed: list[float] = []
    named: list[float] = []
    echo, port = start_echo()
    try:
        with ExtenderWorld(nodes) as world:
            other = Caller(port)
            for number in range(calls + 1):
                body = msgspec.json.encode({"Pod": asked_pod(f"w{number}"), "Nodes": raw})
                taken, content = world.caller.time("filter", body)
                answered = msgspec.json.decode(content)["Nodes"]
                assert answered["items"][0]["status"]["images"], content[:300]
                whole.append(taken)
                echoed.append(other.time("filter", body)[0])
                named.append(world.caller.time("filter", filter_body(f"x{number}", names))[0])
    finally:
        echo.stop()
    shown = f"{size:,} Nodes of {len(raw) / size / 1024:.0f} KiB ({len(raw) / 1e6:.0f} MB a call)"
    # The first call makes tables.
    for percent in (50, 99):
        yield Row(
            table=_TABLE,
            name=f"{shown}, p{percent}",
            ours=percentile(whole[1:], percent),
            other=percentile(echoed[1:], percent),
            unit="ms",
        )
    yield Row(
        table=_TABLE,
        name=f"{size:,} nodes: whole / by name, p50",
        ours=percentile(whole[1:], 50),
        other=percentile(named[1:], 50),
        unit="ms",
        note="kube-scheduler's own work for so much JSON is not in it",
    )
