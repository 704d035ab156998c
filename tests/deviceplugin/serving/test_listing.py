"""The device list, and its delivery to every stream."""

from __future__ import annotations

import threading

from deviceplugin.resources.devices import Resource
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.serving.listing import MOST_STREAMS, Listing, list_devices
from deviceplugin.serving.server import THREADS
from deviceplugin.v1beta1 import api_pb2
from tests.deviceplugin.nodes import RESOURCE, machine, stock_of
from tests.waiting import wait_until
from topology.model import NodeTopology


def _resource(topology: NodeTopology, unhealthy: dict[str, str] | None = None) -> Resource:
    return stock_of(topology, unhealthy).resource(RESOURCE)


def _lists(resource: Resource, *, numa_hints: bool = True) -> list[tuple[str, str, list[int]]]:
    return [
        (device.ID, device.health, [node.ID for node in device.topology.nodes])
        for device in list_devices(resource, numa_hints=numa_hints).devices
    ]


def test_every_gpu_is_listed_with_its_one_numa_node() -> None:
    """The list names each GPU, healthy, with exactly one NUMA node."""
    expected = [
        ("g0", "Healthy", [0]),
        ("g1", "Healthy", [0]),
        ("g2", "Healthy", [1]),
        ("g3", "Healthy", [1]),
    ]
    assert expected == _lists(_resource(machine(4)))


def test_an_unknown_numa_node_gives_no_topology() -> None:
    """Without a NUMA node, and with hints switched off, a device carries no topology at all."""
    bare = list_devices(_resource(machine(2, numa=False)), numa_hints=True)
    off = list_devices(_resource(machine(2)), numa_hints=False)
    assert not any(device.HasField("topology") for device in (*bare.devices, *off.devices))


def test_a_failed_gpu_stays_in_the_list() -> None:
    """A failed GPU is sent as Unhealthy: one that vanishes would keep its last health."""
    listed = _lists(_resource(machine(2), {"g1": "XID 79"}))
    assert [(uuid, health) for uuid, health, _ in listed] == [
        ("g0", "Healthy"),
        ("g1", "Unhealthy"),
    ]


def _message(*uuids: str) -> api_pb2.ListAndWatchResponse:
    return api_pb2.ListAndWatchResponse(devices=[api_pb2.Device(ID=uuid) for uuid in uuids])


def test_every_stream_gets_every_list() -> None:
    """Two streams both get the first list and the next one, whole."""
    listing = Listing(_message("a"))
    streams = [iter(listing.open()), iter(listing.open())]
    assert [next(stream) for stream in streams] == [_message("a")] * 2
    listing.post(_message("a", "b"))
    assert [next(stream) for stream in streams] == [_message("a", "b")] * 2


def test_a_slow_stream_gets_the_newest_list_only() -> None:
    """Lists replace each other: a stream that was away gets the last one."""
    listing = Listing(_message("a"))
    stream = iter(listing.open())
    next(stream)
    listing.post(_message("b"))
    listing.post(_message("c"))
    assert next(stream) == _message("c")


def test_an_equal_list_is_not_sent_again() -> None:
    """Posting what was sent already wakes nobody."""
    listing = Listing(_message("a"))
    stream = iter(listing.open())
    next(stream)
    got: list[api_pb2.ListAndWatchResponse] = []
    reader = threading.Thread(target=lambda: got.append(next(stream)))
    reader.start()
    listing.post(_message("a"))
    listing.post(_message("b"))
    reader.join(10)
    assert got == [_message("b")]


def test_streams_end_one_by_one_or_all_at_once() -> None:
    """Ending one stream leaves the other; closing ends all and those to come."""
    changes: list[int] = []
    listing = Listing(_message("a"), lambda: changes.append(listing.active))
    first, second = listing.open(), listing.open()
    listing.end(first)
    listing.end(first)
    assert changes == [1, 2, 1]
    assert list(first) == []
    ended = threading.Event()

    def drain() -> None:
        list(second)
        ended.set()

    threading.Thread(target=drain).start()
    listing.close()
    wait_until(ended.is_set, what="the second stream to end")
    assert list(listing.open()) == []
    assert listing.opened == 3


def test_streams_never_use_up_the_servers_threads() -> None:
    """One stream too many ends the oldest: the other calls keep threads of their own."""
    listing = Listing(_message("a"))
    streams = [listing.open() for _ in range(MOST_STREAMS + 1)]
    assert [stream.closed for stream in streams] == [True] + [False] * MOST_STREAMS
    assert listing.active == MOST_STREAMS < THREADS
    assert list(streams[0]) == []


def test_the_board_tells_its_listeners_of_changes_only() -> None:
    """Posting an equal inventory is no news."""
    board = Board()
    heard: list[Inventory] = []
    board.listen(heard.append)
    inventory = Inventory(machine(2))
    assert board.post(inventory)
    assert not board.post(Inventory(machine(2)))
    assert heard == [inventory]
