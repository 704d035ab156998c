"""Our device plugin and NVIDIA's over their real sockets, each beside an embedded kubelet.

Both see one mock machine through a libnvidia-ml.so.1. A call of that goes to a server, which is
dearer than a driver's library, so the reference gets its answers remembered: the best case for it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import grpc
import msgspec
from rich.console import Console

from deviceplugin.podresources.v1 import api_pb2 as pods_pb2
from deviceplugin.podresources.v1 import api_pb2_grpc as pods_grpc
from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from mock_nvml import gpu_uuid
from tests.bench import reference_plugin
from tests.bench.memory import resident_mib
from tests.bench.node_world import BenchWorld, places
from tests.bench.nvml_box import NvmlBox
from tests.bench.rows import Row, percentile, summarise
from tests.contract.world import GPUS, MACHINE, NODE
from tests.e2e.errors import MissingError
from tests.topology.machines import machine_class
from topology.catalogue import load_machine
from topology.gpuset import gpuset
from topology.tables import Tables

_TABLE: Final = "The device plugin over its sockets, beside NVIDIA's (a DGX-1V's mock)"
_SPLIT: Final = "GetPreferredAllocation taken apart"
# kubelet's own limit on PodResources is 100 a second, which is what each call of ours asks.
_PAUSE: Final = 0.011
_SEED: Final = 1

Stub = api_pb2_grpc.DevicePluginStub


class Subject(msgspec.Struct, frozen=True):
    """A plugin that runs: its world, its process and its socket."""

    world: BenchWorld
    pid: int
    stub: Stub


class Asked(msgspec.Struct, frozen=True):
    """A preference that kubelet asks for."""

    free: tuple[str, ...]
    size: int


def measure(*, quick: bool) -> Iterator[Row]:
    """Ask both plugins the same in turns, then look at memory, then take kubelet's socket away."""
    calls = 500 if quick else 10_000
    with ExitStack() as stack:
        box = stack.enter_context(NvmlBox(MACHINE, NODE))
        ours = _start_ours(stack, box)
        theirs: Subject | None = None
        try:
            reference_plugin.build()
        except MissingError as error:
            Console(stderr=True).print(f"without the reference plugin: {error}")
        else:
            yield _count_nvml(box, ours)
            theirs = _start_reference(stack, box)
        both = [ours, *([theirs] if theirs is not None else [])]
        at_rest = [resident_mib(one.pid) for one in both]
        yield from _measure_preferred(both, max(200, calls // 10))
        yield from _split_preferred(ours, 100 if quick else 500)
        yield from _measure_allocate(both, calls)
        yield _row("memory at rest", at_rest, "MiB")
        after = resident_mib(ours.pid)
        grown = f"memory after {calls:,} calls, beside that at rest"
        yield Row(table=_TABLE, name=grown, ours=after, other=at_rest[0], unit="MiB")
        yield _measure_registration(both, 5 if quick else 15)


def _start_ours(stack: ExitStack, box: NvmlBox) -> Subject:
    world = BenchWorld(box)
    stack.callback(world.close)
    world.start_plugin()
    return Subject(world, world.pid(), _connect(stack, world.socket()))


def _start_reference(stack: ExitStack, box: NvmlBox, *, remembered: bool = True) -> Subject:
    world = BenchWorld(box)
    stack.callback(world.close)
    plugin = world.start_reference(remembered=remembered)
    stack.callback(plugin.stop)
    assert plugin.pid is not None
    return Subject(world, plugin.pid, _connect(stack, plugin.socket))


def _connect(stack: ExitStack, address: str) -> Stub:
    return Stub(stack.enter_context(grpc.insecure_channel(address)))


def _row(name: str, values: Sequence[float], unit: str, note: str = "") -> Row:
    """Return a row of ours and, if it was measured, of the reference's."""
    other = values[1] if len(values) > 1 else None
    return Row(table=_TABLE, name=name, ours=values[0], other=other, unit=unit, note=note)


def _count_nvml(box: NvmlBox, ours: Subject) -> Row:
    """Count the calls for one preference; what a plugin asks by the clock is taken off."""
    asked = _requests(20)
    with ExitStack() as stack:
        theirs = _start_reference(stack, box, remembered=False)
        counts, times = [], []
        for one in (ours, theirs):
            begun, before = time.perf_counter(), box.calls()
            for request in asked:
                taken = _time_preferred(one.stub, request)[0]
                if one is theirs:
                    times.append(taken)
            seconds, during = time.perf_counter() - begun, box.calls() - before
            before = box.calls()
            time.sleep(seconds)
            counts.append(max(0.0, during - (box.calls() - before)) / len(asked))
    return _row(
        "NVML calls for each GetPreferredAllocation",
        counts,
        "calls",
        f"none remembered, the reference took {percentile(times, 50):.3g} ms, mostly the mock's",
    )


def _measure_preferred(both: Sequence[Subject], calls: int) -> Iterator[Row]:
    taken: list[list[float]] = [[] for _ in both]
    speeds: list[list[float]] = [[] for _ in both]
    tables = Tables(machine_class(load_machine(MACHINE)))
    for request in _requests(calls):
        for place, one in enumerate(both):
            milliseconds, chosen = _time_preferred(one.stub, request)
            assert len(chosen) == request.size
            taken[place].append(milliseconds)
            speeds[place].append(tables.quality[gpuset(places(chosen))])
        time.sleep(_PAUSE)
    for percent in (50, 99):
        name = f"GetPreferredAllocation, {GPUS} GPUs, any k, p{percent}"
        yield _row(name, [percentile(times, percent) for times in taken], "ms")
    if len(both) > 1:
        pairs = list(zip(*speeds, strict=True))
        better = sum(ours > theirs for ours, theirs in pairs)
        yield Row(
            table=_TABLE,
            name="share of requests with a slower set than the reference's",
            ours=sum(ours < theirs for ours, theirs in pairs) / len(pairs),
            unit="",
            note=f"{better} of {len(pairs)} faster, by predicted bus bandwidth",
        )


def _split_preferred(ours: Subject, calls: int) -> Iterator[Row]:
    """Say where the time of a preference goes: means, as our plugin's own metrics have them."""
    world = ours.world
    parts = ("choice_seconds_sum", "rpc_seconds_sum")

    def read() -> list[float]:
        return [
            world.count(parts[0]),
            world.count(parts[1], rpc="GetPreferredAllocation"),
        ]

    before, seen = read(), []
    for request in _requests(calls):
        seen.append(_time_preferred(ours.stub, request)[0])
        time.sleep(_PAUSE)
    choice, whole = (1000 * (now - then) / calls for now, then in zip(read(), before, strict=True))
    listed = _time_pod_resources(world.pod_resources(), calls)
    client = sum(seen) / calls
    for name, value, note in (
        ("as kubelet sees it, mean", client, ""),
        ("of it choosing the set", choice, ""),
        ("of it asking PodResources and whom it is for", whole - choice, "the embedded kubelet"),
        ("of it gRPC and the sockets", client - whole, ""),
        ("PodResources List alone, from a client of its own", listed, "the same kubelet, idle"),
    ):
        yield Row(table=_SPLIT, name=name, ours=value, unit="ms", note=note)


def _measure_allocate(both: Sequence[Subject], calls: int) -> Iterator[Row]:
    request = api_pb2.AllocateRequest(
        container_requests=[
            api_pb2.ContainerAllocateRequest(devices_ids=list(both[0].world.uuids()[:4]))
        ]
    )
    taken: list[list[float]] = [[] for _ in both]
    for _ in range(calls):
        for place, one in enumerate(both):
            begun = time.perf_counter()
            one.stub.Allocate(request)
            taken[place].append((time.perf_counter() - begun) * 1000)
    for percent in (50, 99):
        name = f"Allocate of 4 GPUs, p{percent}"
        yield _row(name, [percentile(times, percent) for times in taken], "ms")


def _measure_registration(both: Sequence[Subject], rounds: int) -> Row:
    taken: list[list[float]] = [[] for _ in both]
    for _ in range(rounds):
        for place, one in enumerate(both):
            before = one.world.registered()
            begun = time.perf_counter()
            one.world.renew_kubelet_socket()
            _await_more(one.world.registered, before)
            taken[place].append((time.perf_counter() - begun) * 1000)
    row = _row(
        "registered again after kubelet.sock was made anew",
        [summarise(times)[0] for times in taken],
        "ms",
    )
    return msgspec.structs.replace(row, spread=summarise(taken[0])[1])


def _requests(calls: int) -> list[Asked]:
    chance = random.Random(_SEED)
    uuids = [gpu_uuid(NODE, index) for index in range(GPUS)]
    return [
        Asked(tuple(free), chance.randint(1, len(free)))
        for free in (chance.sample(uuids, chance.randint(1, GPUS)) for _ in range(calls))
    ]


def _time_preferred(stub: Stub, asked: Asked) -> tuple[float, tuple[str, ...]]:
    """Return milliseconds, and what was preferred."""
    wanted = api_pb2.ContainerPreferredAllocationRequest(
        available_deviceIDs=asked.free, allocation_size=asked.size
    )
    request = api_pb2.PreferredAllocationRequest(container_requests=[wanted])
    begun = time.perf_counter()
    answer = stub.GetPreferredAllocation(request)
    taken = (time.perf_counter() - begun) * 1000
    return taken, tuple(answer.container_responses[0].deviceIDs)


def _time_pod_resources(address: str, calls: int) -> float:
    """Return the mean milliseconds of PodResources List."""
    taken = 0.0
    with grpc.insecure_channel(address) as channel:
        stub = pods_grpc.PodResourcesListerStub(channel)
        stub.List(pods_pb2.ListPodResourcesRequest(), wait_for_ready=True)
        for _ in range(calls):
            time.sleep(_PAUSE)
            begun = time.perf_counter()
            stub.List(pods_pb2.ListPodResourcesRequest())
            taken += time.perf_counter() - begun
    return 1000 * taken / calls


def _await_more(counted: Callable[[], int], before: int) -> None:
    """Wait for a count to grow, looking often: what is waited for takes milliseconds."""
    deadline = time.monotonic() + 10
    while counted() <= before:
        assert time.monotonic() < deadline, "kubelet is not told of the plugin"
        time.sleep(0.0005)
