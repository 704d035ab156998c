"""The device plugin over its real sockets: latencies, memory, and how soon it registers again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import grpc

from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tests.bench.memory import resident_mib
from tests.bench.rows import Row, percentile, summarise
from tests.contract.embedded_world import EmbeddedWorld
from tests.contract.world import GPUS, Setup
from tests.waiting import wait_until

_TABLE: Final = "The device plugin over its sockets (embedded kubelet, mock of a DGX-1V)"
# What the reference plugin took on another machine of two cores: facts, not measured here.
_REFERENCE_PREFERRED: Final = "reference plugin elsewhere: p50 2.7-15 ms, p99 up to 115 ms"
_REFERENCE_ALLOCATE: Final = "reference plugin elsewhere: p50 0.115-0.19 ms"
_REFERENCE_MEMORY: Final = "reference plugin elsewhere: 40-43 MB"
_REFERENCE_REGISTER: Final = "reference plugin elsewhere: 6-31 ms"


class BenchWorld(EmbeddedWorld):
    """The contract's node, looked at from closer by."""

    def pid(self) -> int:
        """Return the plugin's process."""
        return self._running_plugin().pid

    def socket(self) -> str:
        """Return the address of the plugin's socket."""
        (path,) = self._parts.device_plugins_dir.glob("gputopo-*.sock")
        return f"unix:{path}"

    def registered(self) -> int:
        """Return how often kubelet has taken a registration."""
        return len(self._kubelet.journal.entries("registered"))


def measure(*, quick: bool) -> Iterator[Row]:
    """Time the RPCs, then look at the memory, then take kubelet's socket away."""
    calls = 500 if quick else 10_000
    world = BenchWorld(Setup())
    try:
        world.start_plugin()
        at_rest = resident_mib(world.pid())
        with _stub(world) as stub:
            preferred = _time_preferred(stub, world.uuids(), max(200, calls // 10))
            allocate = _time_allocate(stub, world.uuids(), calls)
        yield Row(
            table=_TABLE,
            name="GetPreferredAllocation, 8 GPUs, any k, p50",
            ours=percentile(preferred, 50),
            unit="ms",
            note=_REFERENCE_PREFERRED,
        )
        yield Row(
            table=_TABLE,
            name="GetPreferredAllocation, 8 GPUs, any k, p99",
            ours=percentile(preferred, 99),
            unit="ms",
        )
        yield Row(
            table=_TABLE,
            name="Allocate, p50",
            ours=percentile(allocate, 50),
            unit="ms",
            note=_REFERENCE_ALLOCATE,
        )
        yield Row(table=_TABLE, name="Allocate, p99", ours=percentile(allocate, 99), unit="ms")
        yield Row(
            table=_TABLE,
            name="memory at rest, the mock included",
            ours=at_rest,
            unit="MiB",
            note=_REFERENCE_MEMORY,
        )
        yield Row(
            table=_TABLE,
            name=f"memory after {calls:,} calls",
            ours=resident_mib(world.pid()),
            other=at_rest,
            unit="MiB",
        )
        median, spread = summarise(_time_registrations(world, 5 if quick else 15))
        yield Row(
            table=_TABLE,
            name="registered again after kubelet.sock was made anew",
            ours=median,
            unit="ms",
            spread=spread,
            note=_REFERENCE_REGISTER,
        )
    finally:
        world.close()


@contextmanager
def _stub(world: BenchWorld) -> Iterator[api_pb2_grpc.DevicePluginStub]:
    with grpc.insecure_channel(world.socket()) as channel:
        yield api_pb2_grpc.DevicePluginStub(channel)


def _time_preferred(
    stub: api_pb2_grpc.DevicePluginStub, uuids: tuple[str, ...], calls: int
) -> list[float]:
    chance = random.Random(1)
    times = []
    for _ in range(calls):
        free = chance.sample(uuids, chance.randint(1, GPUS))
        asked = api_pb2.ContainerPreferredAllocationRequest(
            available_deviceIDs=free, allocation_size=chance.randint(1, len(free))
        )
        request = api_pb2.PreferredAllocationRequest(container_requests=[asked])
        begun = time.perf_counter()
        answer = stub.GetPreferredAllocation(request)
        times.append((time.perf_counter() - begun) * 1000)
        assert len(answer.container_responses[0].deviceIDs) == asked.allocation_size
        # kubelet's own limit on PodResources is 100 a second, which is what each call asks.
        time.sleep(0.011)
    return times


def _time_allocate(
    stub: api_pb2_grpc.DevicePluginStub, uuids: tuple[str, ...], calls: int
) -> list[float]:
    request = api_pb2.AllocateRequest(
        container_requests=[api_pb2.ContainerAllocateRequest(devices_ids=list(uuids[:4]))]
    )
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        stub.Allocate(request)
        times.append((time.perf_counter() - begun) * 1000)
    return times


def _time_registrations(world: BenchWorld, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        before = world.registered()
        begun = time.perf_counter()
        world.renew_kubelet_socket()
        wait_until(partial(_exceeds, world.registered, before), what="a registration")
        times.append((time.perf_counter() - begun) * 1000)
    return times


def _exceeds(counted: Callable[[], int], before: int) -> bool:
    return counted() > before
