"""`gputopo bench`: what choosing costs here, on machines and cluster sizes of your own.

It needs nothing but the package. What needs peers, sockets or real components is `make bench`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from math import comb
from typing import Final

import msgspec
import typer

from cli.discovered import discover_machine
from cli.usage import one_line_errors, print_json
from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts, Room, hardware_of
from scheduler.engine.cycle import schedule
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE
from scheduler.engine.request import Amounts, ContainerRequest, Demand, PodRequest
from topology.catalogue import load_machine
from topology.choice import Request
from topology.gpuset import EMPTY, GpuSet
from topology.model import NodeTopology, TopologyClass, classify
from topology.policies import Chooser
from topology.profiles import TRAINING
from topology.quality import bus_bandwidth
from topology.tables import DEFAULT_MIX, Tables

_SEED: Final = 1
_MOST_SETS: Final = 2000
"""A search that looks at more sets than this is not waited for."""

_MOST_NODES: Final = 100_000
_CAPACITY: Final = Amounts(96_000, 393_216, 110)


class Line(msgspec.Struct, frozen=True):
    """A figure of ours in `unit`, and the same without our tables, where that was measured."""

    name: str
    ours: float
    other: float | None
    ratio: float | None
    unit: str


def bench(
    *,
    machines: list[str] = typer.Argument(
        None, metavar="[FILE-or-NAME]...", help="Default: dgx1-v100 and dgx2-16x-v100."
    ),
    nodes: list[int] = typer.Option(
        [500, 5000, 50_000], help="Nodes of the cluster that is decided on; may be repeated."
    ),
    json: bool = typer.Option(False, "--json", help="Print a JSON list."),
) -> None:
    """Time the choice of a set, beside a search over all sets, and decisions on a cluster."""
    for count in nodes:
        if not 1 <= count <= _MOST_NODES:
            raise typer.TyperException(f"--nodes: {count} is not 1 to {_MOST_NODES}")
    with one_line_errors():
        names = machines or ["dgx1-v100", "dgx2-16x-v100"]
        found = [discover_machine(load_machine(name)) for name in names]
    lines = [
        *(line for name, one in zip(names, found, strict=True) for line in _on_machine(name, one)),
        *(line for count in nodes for line in _on_cluster(count, found)),
    ]
    if json:
        print_json(lines)
        return
    for line in lines:
        beside = "" if line.other is None else f"  search {line.other:,.3g} {line.unit}"
        print(f"{line.name:52}{line.ours:>10,.3g} {line.unit}{beside}")


def _on_machine(name: str, topology: NodeTopology) -> Iterator[Line]:
    cls = classify(topology)
    begun = time.perf_counter()
    chooser = Chooser(Tables(cls), TRAINING)
    yield _line(f"{name}: tables, built once", 1e3 * (time.perf_counter() - begun), "ms")
    for size in (size for size in (1, 2, 4, 8, 16) if size <= cls.count):
        everything = GpuSet((1 << cls.count) - 1)
        asked = Request(free=everything, count=size, must=EMPTY, allowed=everything, min_link=None)

        def choose(asked: Request = asked) -> object:
            chooser.choose.cache_clear()
            return chooser.choose(asked)

        ours = 1e6 * _median(choose, 200)
        other = None
        if comb(cls.count, size) <= _MOST_SETS:
            other = 1e6 * _median(partial(_search, cls, size), 1)
        yield _line(f"{name}: {size} of {cls.count} GPUs", ours, "us", other)


def _search(cls: TopologyClass, size: int) -> float:
    """Return the best bandwidth of all sets of this size, looked at one by one."""
    return max(
        bus_bandwidth(cls, GpuSet(sum(1 << at for at in members)))
        for members in combinations(range(cls.count), size)
    )


def _on_cluster(count: int, machines: Sequence[NodeTopology]) -> Iterator[Line]:
    state = ClusterState(DEFAULT_MIX)
    known = [_facts(topology) for topology in machines]
    chance = random.Random(_SEED)  # noqa: S311 -- which GPUs are in use, no secret
    names = [f"node-{at:06}" for at in range(count)]

    def change(at: int) -> None:
        facts = known[at % len(known)]
        used = GpuSet(chance.getrandbits(len(facts.uuids)) & chance.getrandbits(len(facts.uuids)))
        state.put(names[at], msgspec.structs.replace(facts, occupied=used))

    for at, name in enumerate(names):
        change(at)
        state.put_room(name, Room(_CAPACITY, Amounts()))
    view, framework, profile = state.view(names), built_in(), BUILT_IN[DEFAULT_PROFILE]
    for gpus in (1, 4):
        pod = PodRequest("u", "default", "p", (ContainerRequest("main", gpus),), Demand(gpus))

        def decide(pod: PodRequest = pod) -> object:
            return schedule(framework, view, pod, profile, at=0.0)

        decide()  # builds the tables
        seconds = _median(decide, 20, before=lambda: change(chance.randrange(count)))
        yield _line(
            f"{count:,} nodes: a decision, {gpus} GPU{'s' * (gpus > 1)}", 1e3 * seconds, "ms"
        )
    event = _median(lambda: change(chance.randrange(count)), 1000)
    yield _line(f"{count:,} nodes: an event of a node", 1e6 * event, "us")


def _facts(topology: NodeTopology) -> NodeFacts:
    return NodeFacts(
        hardware=hardware_of(topology),
        uuids=tuple(gpu.uuid for gpu in topology.gpus),
        healthy=topology.everything,
    )


def _median(
    work: Callable[[], object], times: int, before: Callable[[], object] = lambda: None
) -> float:
    """Return the median seconds of some calls."""
    taken = []
    for _ in range(times):
        before()
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _line(name: str, ours: float, unit: str, other: float | None = None) -> Line:
    return Line(name, ours, other, ours / other if other else None, unit)
