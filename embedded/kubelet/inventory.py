"""Which devices the plugins have told of, and how their plugins stand. Not for several threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from embedded.kubelet.devices import Device, Endpoint, Options, StoppedEndpoint
from embedded.kubelet.errors import AllocationError

STOP_GRACE: Final = 300.0
"""Seconds after a plugin's end until the node's capacity drops to 0, too."""


class Counts(msgspec.Struct, frozen=True):
    """Devices per resource as node.status shows them; `removed` are those gone for good."""

    capacity: dict[str, int]
    allocatable: dict[str, int]
    removed: frozenset[str]


class Inventory:
    """The resources of a node. `registered` are those known from the process before this one.

    They have no devices and a stopped endpoint until their plugin is back. Times are given.
    """

    def __init__(self, registered: Iterable[str], now: float, grace: float) -> None:
        self._grace = grace
        self._endpoints: dict[str, Endpoint] = {}
        self._options: dict[str, Options] = {}
        self._stopped_at: dict[str, float] = {}
        self._devices: dict[str, dict[str, Device]] = {}
        self._healthy: dict[str, set[str]] = {}
        self._unhealthy: dict[str, set[str]] = {}
        self._removed: set[str] = set()
        self._health: dict[tuple[str, str], bool] = {}
        for resource in registered:
            self._healthy[resource] = set()
            self._unhealthy[resource] = set()
            self._endpoints[resource] = StoppedEndpoint(resource)
            self._stopped_at[resource] = now

    def connect(self, resource: str, endpoint: Endpoint, options: Options) -> None:
        """Call this endpoint from now on; the devices stay as they are."""
        self._endpoints[resource] = endpoint
        self._options[resource] = options
        self._stopped_at.pop(resource, None)

    def disconnect(self, resource: str, endpoint: Endpoint | None, now: float) -> bool:
        """Stop the endpoint and make every device unhealthy; the options stay.

        With `endpoint`, only if that is the one in use. Tells whether it was done.
        """
        current = self._endpoints.get(resource)
        if current is None or endpoint not in (None, current):
            return False
        self._unhealthy.setdefault(resource, set()).update(self._healthy.get(resource, ()))
        if resource in self._healthy:
            self._healthy[resource] = set()
        self._endpoints[resource] = StoppedEndpoint(resource)
        self._stopped_at[resource] = now
        return True

    def replace(self, resource: str, devices: Iterable[Device]) -> str:
        """Take a list in place of the one before; return it in words."""
        known = {device.id: device for device in devices}
        self._devices[resource] = known
        self._healthy[resource] = {d.id for d in known.values() if d.healthy}
        self._unhealthy[resource] = {d.id for d in known.values() if not d.healthy}
        self._removed.discard(resource)
        for device in known.values():
            self._health[resource, device.id] = device.healthy
        return f"{len(self._healthy[resource])} of {len(known)} healthy"

    def counts(self, now: float) -> Counts:
        """Return the node's numbers; resources whose plugin is long gone are dropped here."""
        for resource, since in tuple(self._stopped_at.items()):
            if now - since >= self._grace:
                for book in (self._healthy, self._unhealthy, self._endpoints, self._options):
                    book.pop(resource, None)
                del self._stopped_at[resource]
                self._removed.add(resource)
        allocatable = {resource: len(ids) for resource, ids in self._healthy.items()}
        capacity = {
            resource: allocatable.get(resource, 0) + len(self._unhealthy.get(resource, ()))
            for resource in self._healthy.keys() | self._unhealthy.keys()
        }
        return Counts(capacity, allocatable, frozenset(self._removed))

    def knows(self, resource: str) -> bool:
        """Tell whether a plugin has registered for it, now or before a restart."""
        return resource in self._healthy

    def healthy(self, resource: str) -> frozenset[str]:
        """Return the IDs of the healthy devices."""
        return frozenset(self._healthy.get(resource, ()))

    def devices(self, resource: str) -> dict[str, Device]:
        """Return the last list by ID; it stays when the plugin ends."""
        return self._devices.get(resource, {})

    def allocatable(self) -> dict[str, tuple[Device, ...]]:
        """Return the healthy devices of each resource."""
        return {
            resource: tuple(d for d in known.values() if d.id in self.healthy(resource))
            for resource, known in self._devices.items()
            if self.knows(resource)
        }

    def registered(self) -> dict[str, tuple[str, ...]]:
        """Return the resources with their healthy IDs, for the checkpoint."""
        return {name: tuple(sorted(ids)) for name, ids in self._healthy.items()}

    def numa_nodes(self) -> frozenset[int]:
        """Return every NUMA node that a device names."""
        return frozenset(
            node for known in self._devices.values() for d in known.values() for node in d.numa
        )

    def health(self, resource: str, device: str) -> bool | None:
        """Return a device's last reported health, None if it was never listed.

        It stays when the device vanishes from the list and when the plugin ends.
        """
        return self._health.get((resource, device))

    def plugin(self, resource: str) -> tuple[Endpoint, Options]:
        """Return whom to call. Raises AllocationError when there is nobody."""
        endpoint = self._endpoints.get(resource)
        if endpoint is None:
            raise AllocationError(
                f"endpoint not found in cache for a registered resource: {resource}"
            )
        return endpoint, self._options.get(resource, Options())

    def check(self, resource: str, held: frozenset[str]) -> None:
        """Raise AllocationError unless there are healthy devices and `held` are among them."""
        if resource not in self._healthy:
            raise AllocationError(f"cannot allocate unregistered device {resource}")
        if not self._healthy[resource]:
            raise AllocationError(
                f"no healthy devices present; cannot allocate unhealthy devices {resource}"
            )
        if not held <= self._healthy[resource]:
            raise AllocationError(
                "previously allocated devices are no longer healthy;"
                f" cannot allocate unhealthy devices {resource}"
            )
