"""What the extender hears: events a second, CPU and memory for each, and what a relist costs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec

from runtime.objects import Node, Pod
from tests.bench.bodies import beat, bound_pod, ill, kubelet_node
from tests.bench.extender_world import ExtenderWorld
from tests.bench.fleet import GPUS, node
from tests.bench.rows import Row, percentile
from topology.model import NodeTopology

_EVENTS: Final = "Events that the extender hears (embedded API server)"
_RELIST: Final = "filter while the extender lists all nodes anew"
_DECODED: Final = 2000
_marker = count()


class Heard(NamedTuple):
    """Events a second while there are some, and microseconds of CPU for each."""

    per_second: float
    cpu_us: float


def measure(*, quick: bool, topology: NodeTopology) -> Iterator[Row]:
    """Measure events of all kinds, what pods take, and filter during relists, on 5,000 nodes."""
    size, events, pods = (2000, 4000, 4000) if quick else (5000, 10_000, 20_000)
    names = [f"n{number:05}" for number in range(size)]
    nodes = [kubelet_node(name, topology) for name in names]
    yield from _measure_pods(topology, pods)
    with ExtenderWorld(nodes) as world:
        yield from _measure_events(world, nodes, topology, events)
        yield from _measure_relists(world, names, topology, seconds=6 if quick else 20)


def time_node_events(
    world: ExtenderWorld, names: Sequence[str], topology: NodeTopology, events: int
) -> Heard:
    """Time Node events that change what is healthy."""
    nodes = [node(name, topology) for name in names[: min(len(names), events)]]
    turns = [ill(nodes[number % len(nodes)], number + 2) for number in range(events)]
    return _hear(world, topology, lambda: [world.api.store.write("nodes", one) for one in turns])


def relist_seconds(world: ExtenderWorld, topology: NodeTopology) -> float:
    """Return how long it takes from the end of a watch by 410 until the extender is up to date."""
    # A watch that has brought something is renewed at once; one that has not, after a pause.
    proof = f"marker-{next(_marker)}"
    world.api.store.write("nodes", node(proof, topology))
    world.await_node(proof)
    begun = time.perf_counter()
    world.await_node(expire(world, topology))
    return time.perf_counter() - begun


def expire(world: ExtenderWorld, topology: NodeTopology) -> str:
    """Let the watch of nodes end with 410 Gone; return a node that only a new list shows."""
    store = world.api.store
    name = f"marker-{next(_marker)}"
    with store.lock:
        store.write("nodes", node(name, topology))
        # As `compact` does, but the watch of pods goes on.
        kept = store._of("nodes")
        kept.log.clear()
        kept.forgotten = store.version
    return name


def _measure_relists(
    world: ExtenderWorld, names: list[str], topology: NodeTopology, seconds: float
) -> Iterator[Row]:
    """Call filter from another process, first in peace, then while relists follow each other."""
    alone = percentile([relist_seconds(world, topology) for _ in range(3)], 50)
    calm = [taken for _, taken in _call(world, names, seconds)[0]]
    calls, windows = _call(world, names, seconds, partial(expire, world, topology), alone)
    during = [
        taken
        for begun, taken in calls
        if any(begun + taken / 1000 > since and begun < until for since, until in windows)
    ]
    nodes = f"{len(names):,} nodes"
    yield Row(
        table=_RELIST,
        name=f"{nodes}: from 410 Gone until the extender is up to date",
        ours=1000 * alone,
        unit="ms",
    )
    for what, percent in (("p50", 50.0), ("p99", 99.0), ("the slowest", 100.0)):
        yield Row(
            table=_RELIST,
            name=f"{nodes}: a call meanwhile / in peace, {what}",
            ours=percentile(during, percent),
            other=percentile(calm, percent),
            unit="ms",
            note=f"{len(during)} calls in {len(windows)} relists, {len(calm)} in peace",
        )


def _call(
    world: ExtenderWorld,
    names: list[str],
    seconds: float,
    disturb: Callable[[], object] | None = None,
    lasts: float = 0.0,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Call filter for some seconds; return calls, and when what `disturb` did went on."""
    command = [sys.executable, "-m", "tests.bench.calling"]
    command += [str(world.port), str(len(names)), str(seconds)]
    calling = subprocess.Popen(command, stdout=subprocess.PIPE)
    windows = []
    end = time.monotonic() + seconds
    while disturb is not None and time.monotonic() < end:
        begun = time.monotonic()
        disturb()
        windows.append((begun, begun + lasts))
        # Long enough for the next watch to live: one that ends at once is renewed after a pause.
        time.sleep(lasts + 1.2)
    answered, _ = calling.communicate()
    assert calling.returncode == 0
    return msgspec.json.decode(answered, type=list[tuple[float, float]]), windows


def _measure_events(
    world: ExtenderWorld, nodes: list[dict[str, Any]], topology: NodeTopology, events: int
) -> Iterator[Row]:
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "a heartbeat": lambda number: beat(nodes[number % len(nodes)], number),
        "a GPU that falls ill or is well again": lambda number: ill(
            nodes[number % len(nodes)], number + 2
        ),
    }
    kib = len(msgspec.json.encode(nodes[0])) / 1024
    for what, change in kinds.items():
        changed = [change(number) for number in range(events)]
        heard = _hear(
            world, topology, lambda all_=changed: [world.api.store.write("nodes", o) for o in all_]
        )
        yield from _show(
            f"{len(nodes):,} nodes of {kib:.0f} KiB, {what}", heard, _decode_us(changed, Node)
        )


def _measure_pods(topology: NodeTopology, pods: int) -> Iterator[Row]:
    """Fill a cluster of small Nodes: what a list of large ones leaves behind would hide pods."""
    names = [f"n{number:05}" for number in range(pods // GPUS)]
    bound = [
        bound_pod(f"pod-{number}", names[number // GPUS], (number % GPUS,))
        for number in range(pods)
    ]
    with ExtenderWorld(node(name, topology) for name in names) as world:
        store = world.api.store
        before = world.resident_mib()
        heard = _hear(world, topology, lambda: [store.write("pods", one) for one in bound])
        yield from _show(
            f"{len(names):,} nodes, a pod with a GPU is bound", heard, _decode_us(bound, Pod)
        )
        yield Row(
            table=_EVENTS,
            name=f"{len(names):,} nodes, memory for each bound pod",
            ours=(world.resident_mib() - before) * 1024 / pods,
            unit="KiB",
            note=f"{pods:,} of them",
        )

        def delete() -> None:
            for one in bound:
                store.remove("pods", "default", one["metadata"]["name"])

        gone = _hear(world, topology, delete)
        yield from _show(
            f"{len(names):,} nodes, a pod with a GPU is gone", gone, _decode_us(bound, Pod)
        )


def _hear(world: ExtenderWorld, topology: NodeTopology, write: Callable[[], object]) -> Heard:
    """Write events while the extender stands still; time it from the moment that it goes on.

    Two last events, a node and a pod that fills it, tell when all are heard.
    """
    name = f"marker-{next(_marker)}"
    used = world.cpu_seconds()
    version = world.api.store.version
    world.process.pause()
    write()
    world.api.store.write("nodes", node(name, topology))
    world.api.store.write("pods", bound_pod(f"fills-{name}", name, tuple(range(GPUS))))
    events = world.api.store.version - version
    begun = time.perf_counter()
    world.process.resume()
    world.await_node(name, full=True)
    return Heard(
        events / (time.perf_counter() - begun), 1e6 * (world.cpu_seconds() - used) / events
    )


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


def _decode_us(objects: Sequence[dict[str, Any]], kind: type[Node | Pod]) -> float:
    """Return the microseconds that reading such an event takes by itself: what no reader saves."""
    lines = [msgspec.json.encode({"type": "MODIFIED", "object": one}) for one in objects[:_DECODED]]
    read_event, read_object = msgspec.json.Decoder(_Event), msgspec.json.Decoder(kind)
    begun = time.process_time()
    for line in lines:
        read_object.decode(read_event.decode(line).object)
    return 1e6 * (time.process_time() - begun) / len(lines)


def _show(what: str, heard: Heard, decode_us: float) -> Iterator[Row]:
    yield Row(
        table=_EVENTS,
        name=f"{what}: CPU for each / for reading its JSON alone",
        ours=heard.cpu_us,
        other=decode_us,
        unit="us",
        note=f"at most {heard.per_second:,.0f} of them a second",
    )
