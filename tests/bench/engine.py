"""How long one decision of the engine takes, and one event: `python -m tests.bench.engine`.

A cluster of many nodes of four kinds, most GPUs in use, some shared; between two decisions some
nodes change. Prints medians and the worst, in milliseconds and microseconds of this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import numpy as np

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts, Room
from scheduler.engine.cycle import schedule
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from scheduler.engine.request import Amounts, PodRequest
from scheduler.engine.workload import GivenWorkload, PodClass
from tests.bench.growth import growth_row
from tests.bench.rows import Row, summarise
from tests.scheduler.nodes import bridged, mesh, pcie, switched
from tests.scheduler.worlds import facts, request
from topology.gpuset import GpuSet
from topology.tables import DEFAULT_MIX

KINDS = (switched(8), bridged(8), mesh(4), pcie(8))
_BARE = [facts(kind) for kind in KINDS]
CAPACITY = Amounts(96_000, 393_216, 110)
SHARES = (810, 470, 320, 650)
_TABLE = "A decision of the engine, 20 nodes changed since the one before"
CHANGED = 20
"""Nodes that change between two decisions."""


def make_workload() -> GivenWorkload:
    """Make a mix with as many forms and CPU levels as openb's default list has."""
    counts: dict[PodClass, float] = {}
    for at, milli in enumerate((810, 470, 320, 650, 230, 460, 590, 160, 550, 220)):
        counts[PodClass(3000 + 500 * at, 1, milli)] = 30.0 - 2 * at
    for gpus in (1, 2, 4, 8):
        for cores in (4, 8, 11, 12):
            counts[PodClass(1000 * cores * gpus, gpus, 1000)] = 20.0 / gpus
    return GivenWorkload(counts)


def make_cluster(nodes: int, dice: np.random.Generator) -> ClusterState:
    """Make a cluster of nodes with pods."""
    state = ClusterState(DEFAULT_MIX, workload=make_workload())
    for at in range(nodes):
        change(state, f"node-{at:06}", _BARE[at % len(_BARE)], dice)
    return state


def change(state: ClusterState, name: str, bare: NodeFacts, dice: np.random.Generator) -> None:
    """Put other pods on a node."""
    count = len(bare.uuids)
    occupied = int(dice.integers(1 << count)) | int(dice.integers(1 << count))
    used = [0] * count
    for at in range(count):
        if not occupied >> at & 1 and dice.random() < 0.4:
            used[at] = SHARES[int(dice.integers(len(SHARES)))]
    state.put(name, msgspec.structs.replace(bare, occupied=GpuSet(occupied), used=tuple(used)))
    state.put_room(name, Room(CAPACITY, Amounts(int(dice.integers(90)) * 1000, 1000, 9)))


def change_some(state: ClusterState, names: Sequence[str], dice: np.random.Generator) -> None:
    """Put other pods on some of the nodes."""
    for at in dice.integers(len(names), size=CHANGED).tolist():
        change(state, names[at], _BARE[at % len(_BARE)], dice)


def pods() -> dict[str, PodRequest]:
    """Return the pods that are asked for."""
    asks = Amounts(4000, 8192)
    return {
        "a share of 0.47": msgspec.structs.replace(request(1, share_milli=470), asks=asks),
        "1 GPU": msgspec.structs.replace(request(1), asks=asks),
        "2 GPUs": msgspec.structs.replace(request(2), asks=asks),
        "4 GPUs": msgspec.structs.replace(request(4), asks=asks),
    }


def measure(work: Callable[[], object], before: Callable[[], object], times: int) -> list[float]:
    """Return the seconds of each call, after what comes before it, sorted."""
    taken = []
    for _ in range(times):
        before()
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)


def rows(*, quick: bool) -> Iterator[Row]:
    """Time decisions and events on clusters of several sizes."""
    sizes = (500, 2_000, 10_000, 50_000) if quick else (500, 5_000, 15_000, 50_000)
    times = 20 if quick else 50
    medians: dict[str, list[float]] = {}
    events: list[float] = []
    framework, profile = built_in(), BUILT_IN["gputopo"]
    for nodes in sizes:
        dice = np.random.default_rng(1)
        state = make_cluster(nodes, dice)
        names = [f"node-{at:06}" for at in range(nodes)]
        view = state.view(names)
        touch = partial(change_some, state, names, dice)
        for what, pod in pods().items():
            decide = partial(schedule, framework, view, pod, profile, at=0.0)
            measure(decide, touch, 1)
            taken = measure(decide, touch, times)
            median, spread = summarise([1000 * seconds for seconds in taken])
            medians.setdefault(what, []).append(median)
            yield Row(
                table=_TABLE,
                name=f"{nodes:,} nodes, a pod of {what}",
                ours=median,
                unit="ms",
                spread=spread,
            )
        spot = names[nodes // 2]
        room = partial(state.put_room, spot, Room(CAPACITY, Amounts(4000)))
        event = measure(room, lambda: None, 1000)
        events.append(1e6 * event[500])
        yield Row(
            table=_TABLE,
            name=f"{nodes:,} nodes, an event of a node",
            ours=events[-1],
            unit="us",
        )
    for what, taken in medians.items():
        yield growth_row(f"a decision on a pod of {what}", sizes, taken, "ms")
    yield growth_row("an event in the engine", sizes, events, "us")


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=50)
    given = parser.parse_args(words)
    dice = np.random.default_rng(1)
    state = make_cluster(given.nodes, dice)
    names = [f"node-{at:06}" for at in range(given.nodes)]
    touch = partial(change_some, state, names, dice)
    framework, profile = built_in(), BUILT_IN["gputopo"]
    view = state.view(names)
    print(f"{given.nodes} nodes, {CHANGED} of them change between decisions; ms")
    print(f"{'pod':18}{'first':>9}{'median':>9}{'p95':>9}{'worst':>9}")
    for what, pod in pods().items():

        def decide(pod: PodRequest = pod) -> object:
            return schedule(framework, view, pod, profile, at=0.0)

        first = measure(decide, touch, 1)[0]
        taken = measure(decide, touch, given.times)
        figures = (first, taken[len(taken) // 2], taken[int(len(taken) * 0.95)], taken[-1])
        print(f"{what:18}" + "".join(f"{1000 * seconds:9.2f}" for seconds in figures))
    rows = measure(lambda: state.view(names), lambda: None, given.times)
    print(f"{'names to rows':18}{'':9}{1000 * rows[len(rows) // 2]:9.2f}")
    spot = f"node-{given.nodes // 2:06}"
    events = measure(
        lambda: state.put_room(spot, Room(CAPACITY, Amounts(int(dice.integers(90)) * 1000))),
        lambda: None,
        1000,
    )
    print(f"an event of a pod without GPUs: {1e6 * events[500]:.1f} us")


if __name__ == "__main__":
    main()
