"""The device list that kubelet watches, and its delivery to every open stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from deviceplugin.resources.devices import Resource
from deviceplugin.v1beta1 import api_pb2

HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"

MOST_STREAMS = 4
"""A stream keeps a thread of the server for its life: half of them stay for the other calls."""


def list_devices(resource: Resource, *, numa_hints: bool) -> api_pb2.ListAndWatchResponse:
    """Return the whole list. A failed device stays in it.

    kubelet keeps the last health of a device that vanishes from the list while a pod uses it, so
    leaving a failed one out would show it as healthy.
    """
    return api_pb2.ListAndWatchResponse(
        devices=[
            api_pb2.Device(
                ID=device.id,
                health=UNHEALTHY if device.problem else HEALTHY,
                topology=(
                    api_pb2.TopologyInfo(nodes=[api_pb2.NUMANode(ID=device.numa_node)])
                    if numa_hints and device.numa_node is not None
                    else None
                ),
            )
            for device in resource.devices
        ]
    )


class Stream:
    """One open ListAndWatch: yields the list at once and after each change, until it is closed."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._sent = -1
        self.closed = False

    def __iter__(self) -> Iterator[api_pb2.ListAndWatchResponse]:
        while True:
            answer = self._listing.next_after(self, self._sent)
            if answer is None:
                return
            self._sent, message = answer
            yield message


class Listing:
    """The newest list, handed to any number of streams.

    `opened` counts the streams ever opened, `active` those that are open. `on_change` is called
    without the lock when a stream opens or ends. After `close` all streams end.
    """

    def __init__(
        self,
        first: api_pb2.ListAndWatchResponse,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._changed = threading.Condition()
        self._message = first
        self._version = 0
        self._streams: dict[Stream, None] = {}
        self._on_change = on_change
        self._closed = False
        self.opened = 0

    @property
    def active(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def post(self, message: api_pb2.ListAndWatchResponse) -> None:
        """Send a new list to all streams, unless it equals the last one."""
        with self._changed:
            if message != self._message:
                self._message = message
                self._version += 1
                self._changed.notify_all()

    def open(self) -> Stream:
        """Open a stream; the oldest one ends if there are too many."""
        stream = Stream(self)
        with self._changed:
            self._streams[stream] = None
            self.opened += 1
            for oldest in tuple(self._streams)[:-MOST_STREAMS]:
                self._end(oldest)
        self._on_change()
        return stream

    def end(self, stream: Stream) -> None:
        """End one stream; again is harmless."""
        with self._changed:
            known = stream in self._streams
            self._end(stream)
        if known:
            self._on_change()

    def _end(self, stream: Stream) -> None:
        stream.closed = True
        self._streams.pop(stream, None)
        self._changed.notify_all()

    def close(self) -> None:
        """End all streams, those to come included."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def next_after(
        self, stream: Stream, version: int
    ) -> tuple[int, api_pb2.ListAndWatchResponse] | None:
        """Wait for a list newer than `version`; None when the stream is to end."""
        with self._changed:
            while self._version == version and not stream.closed and not self._closed:
                self._changed.wait()
            if stream.closed or self._closed:
                return None
            return self._version, self._message
