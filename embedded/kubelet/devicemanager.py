"""The device manager: which devices there are, who holds them, and how a container gets its own.

It knows no socket and no clock of its own: plugins come as endpoints, chance and time are given.
The rules are kubelet's as seen on 1.36, with their traps: devices are freed late, chance fills
what the plugin leaves open, and devices of an Allocate in flight can be forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from embedded.kubelet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from embedded.kubelet.devices import (
    Device,
    Endpoint,
    Injection,
    Options,
    StoppedEndpoint,
    merge_injections,
)
from embedded.kubelet.errors import AdmissionError, AllocationError, KubeletError, PluginError
from embedded.kubelet.journal import What
from embedded.kubelet.numa import Nodes, Policy, Split, make_hints, merge_hints, split_devices
from embedded.kubelet.poddevices import Grant, PodDevices
from embedded.kubelet.requests import init_containers, sidecar, whole_limits
from runtime.objects import Container, Pod

STOP_GRACE: Final = 300.0
"""Seconds after a plugin's end until the node's capacity drops to 0, too."""


class Counts(msgspec.Struct, frozen=True):
    """Devices per resource as node.status shows them; `removed` are those gone for good."""

    capacity: dict[str, int]
    allocatable: dict[str, int]
    removed: frozenset[str]


class DeviceManager:
    """The devices of one node, for one life of the kubelet process. Safe to share.

    `active` tells the UIDs of pods that may hold devices, `note` writes the journal, `changed` is
    called after the node's numbers may have changed. `checkpoint` is the file to live on in.
    """

    def __init__(
        self,
        *,
        rng: Random,
        clock: Callable[[], float],
        active: Callable[[], frozenset[str]],
        note: Callable[[What, str, str], None],
        changed: Callable[[], None],
        checkpoint: Path,
        policy: Policy = "none",
        numa_nodes: Iterable[int] = (),
        stop_grace: float = STOP_GRACE,
    ) -> None:
        self._rng = rng
        self._clock = clock
        self._active = active
        self._note = note
        self._changed = changed
        self._path = checkpoint
        self._policy: Policy = policy
        self._numa_nodes = frozenset(numa_nodes)
        self._stop_grace = stop_grace
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._endpoints: dict[str, Endpoint] = {}
        self._options: dict[str, Options] = {}
        self._stopped_at: dict[str, float] = {}
        self._devices: dict[str, dict[str, Device]] = {}
        self._healthy: dict[str, set[str]] = {}
        self._unhealthy: dict[str, set[str]] = {}
        self._removed: set[str] = set()
        self._health: dict[tuple[str, str], bool] = {}
        self._held = PodDevices()
        self._in_use: dict[str, set[str]] = {}
        self._reuse: tuple[str, dict[str, set[str]]] = ("", {})
        self._affinity: dict[tuple[str, str], Nodes | None] = {}
        self._sources_ready = False
        self._load()

    # Plugins

    def connected(self, resource: str, endpoint: Endpoint, options: Options) -> None:
        """Take a plugin that registered. Its devices come later; earlier ones stay as they are."""
        with self._lock:
            self._endpoints[resource] = endpoint
            self._options[resource] = options
            self._stopped_at.pop(resource, None)

    def disconnected(self, resource: str, endpoint: Endpoint | None = None) -> None:
        """Take the end of a plugin's stream: all its devices are unhealthy from now on.

        With `endpoint`, only if that is the one in use.
        """
        with self._lock:
            current = self._endpoints.get(resource)
            if current is None or endpoint not in (None, current):
                return
            self._unhealthy.setdefault(resource, set()).update(self._healthy.get(resource, ()))
            if resource in self._healthy:
                self._healthy[resource] = set()
            self._endpoints[resource] = StoppedEndpoint(resource)
            self._stopped_at[resource] = self._clock()
        self._note("disconnected", resource, "")
        self._changed()

    def listed(self, resource: str, devices: Iterable[Device]) -> None:
        """Take the list that a plugin has sent; it replaces what was known."""
        with self._lock:
            known = {device.id: device for device in devices}
            self._devices[resource] = known
            self._healthy[resource] = {d.id for d in known.values() if d.healthy}
            self._unhealthy[resource] = {d.id for d in known.values() if not d.healthy}
            self._removed.discard(resource)
            for device in known.values():
                self._health[resource, device.id] = device.healthy
            numbers = f"{len(self._healthy[resource])} of {len(known)} healthy"
        self._save()
        self._note("listed", resource, numbers)
        self._changed()

    # What others see

    def counts(self) -> Counts:
        """Return the node's numbers; resources whose plugin is long gone are dropped here."""
        with self._lock:
            now = self._clock()
            for resource, since in tuple(self._stopped_at.items()):
                if now - since >= self._stop_grace:
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

    def held_by(self, uid: str, container: str | None = None) -> tuple[Grant, ...]:
        """Return what a pod, or one of its containers, holds."""
        with self._lock:
            return self._held.grants(uid, container)

    def allocatable_devices(self) -> dict[str, tuple[Device, ...]]:
        """Return the healthy devices of each resource, used or not."""
        with self._lock:
            return {
                resource: tuple(d for d in known.values() if d.id in self._healthy[resource])
                for resource, known in self._devices.items()
                if resource in self._healthy
            }

    def in_use(self) -> dict[str, int]:
        """Return how many devices of each resource are taken."""
        with self._lock:
            return {resource: len(ids) for resource, ids in self._in_use.items()}

    def health_of(self, resource: str, device: str) -> bool | None:
        """Return a device's last reported health, None if it was never listed.

        It stays when the device vanishes from the list and when the plugin ends.
        """
        with self._lock:
            return self._health.get((resource, device))

    # Pods

    def sources_ready(self) -> None:
        """All pods of the first list were looked at: from now on devices are freed."""
        self._sources_ready = True

    def free_ended(self) -> None:
        """Take back the devices of pods that are no longer active."""
        if not self._sources_ready:
            return
        active = self._active()
        with self._lock:
            ended = self._held.pods() - active
            if not ended:
                return
            self._held.delete(ended)
            # Built anew from what is recorded: devices that an Allocate in flight was asked
            # about are not recorded yet, and are forgotten here (kubernetes issue 137534).
            self._in_use = self._held.in_use()

    def align(self, pod: Pod, container: Container) -> None:
        """Choose the NUMA nodes for a container. Raises AdmissionError if the policy refuses."""
        if self._policy == "none":
            return
        uid = pod.metadata.uid
        with self._lock:
            nodes = self._numa_nodes or frozenset(
                node for known in self._devices.values() for d in known.values() for node in d.numa
            )
            reuse = self._reuse[1] if self._reuse[0] == uid else {}
            hints = [
                make_hints(
                    self._devices.get(resource, {}),
                    frozenset(
                        self._healthy.get(resource, set()) - self._in_use.get(resource, set())
                    ),
                    frozenset(reuse.get(resource, ())),
                    needed,
                    nodes,
                )
                for resource, needed in whole_limits(container).items()
                if self._knows(resource)
            ]
            best = merge_hints(hints, nodes, self._policy)
            self._affinity[uid, container.name] = best.nodes
        if self._policy != "best-effort" and not best.preferred:
            raise AdmissionError(
                "TopologyAffinityError", "Resources cannot be allocated with Topology locality"
            )

    def allocate(self, pod: Pod, container: Container, *, survivor: bool = False) -> None:
        """Give a container what it asks for; init containers first, then the others.

        `survivor` says that it runs already, from before this process started. Raises
        AllocationError and PluginError with kubelet's wording.
        """
        uid = pod.metadata.uid
        with self._lock:
            if self._reuse[0] != uid:
                self._reuse = (uid, {})
            reuse = self._reuse[1]
        self._allocate_container(uid, container, reuse, survivor=survivor)
        initial = {each.name: each for each in init_containers(pod)}.get(container.name)
        with self._lock:
            for grant in self._held.grants(uid, container.name):
                # What an init container used is there for the later ones, unless it stays.
                if initial is not None and not sidecar(initial):
                    reuse.setdefault(grant.resource, set()).update(grant.ids)
                else:
                    reuse.get(grant.resource, set()).difference_update(grant.ids)

    def run_options(self, pod: Pod, container: Container) -> tuple[tuple[str, ...], Injection]:
        """Return device IDs and injection for a container's start or restart.

        Calls PreStartContainer where asked for, and Allocate for a container that was admitted
        before its resource was known. Raises as `allocate` does.
        """
        uid = pod.metadata.uid
        missing = False
        for resource, needed in whole_limits(container).items():
            with self._lock:
                known = self._knows(resource) and needed
            if known:
                self._pre_start(uid, container.name, resource)
                with self._lock:
                    missing |= self._held.ids(uid, container.name, resource) is None
        if missing:
            self.allocate(pod, container)
        grants = self.held_by(uid, container.name)
        ids = tuple(device.id for grant in grants for device in grant.devices)
        return ids, merge_injections([grant.injection for grant in grants])

    # Inside

    def _load(self) -> None:
        try:
            stored = read_checkpoint(self._path)
        except KubeletError as error:
            self._note("trouble", self._path.name, str(error))
            return
        self._held = PodDevices(stored.grants)
        self._in_use = self._held.in_use()
        for resource in stored.registered:
            # Nothing to give until the plugin is back, and nobody to ask.
            self._healthy[resource] = set()
            self._unhealthy[resource] = set()
            self._endpoints[resource] = StoppedEndpoint(resource)
            self._stopped_at[resource] = self._clock()

    def _save(self) -> None:
        with self._writing:
            with self._lock:
                now = Checkpoint(
                    grants=self._held.grants(),
                    registered={name: tuple(sorted(ids)) for name, ids in self._healthy.items()},
                )
            write_checkpoint(self._path, now)

    def _knows(self, resource: str) -> bool:
        return resource in self._healthy or resource in self._in_use

    def _allocate_container(
        self, uid: str, container: Container, reuse: dict[str, set[str]], *, survivor: bool
    ) -> None:
        wanted = list(whole_limits(container).items())
        self._rng.shuffle(wanted)  # Go walks a map here
        freed = False
        for resource, needed in wanted:
            with self._lock:
                known = self._knows(resource)
            if not known:
                continue
            if not freed:
                self.free_ended()
                freed = True
            chosen = self._choose(
                uid, container.name, resource, needed, reuse.get(resource, set()), survivor=survivor
            )
            if chosen:
                self._give(uid, container.name, resource, chosen)

    def _give(self, uid: str, container: str, resource: str, chosen: list[str]) -> None:
        with self._lock:
            endpoint = self._endpoints.get(resource)
        try:
            if endpoint is None:
                raise AllocationError(f"unknown Device Plugin {resource}")
            injection = endpoint.allocate(self._in_any_order(chosen))
        except KubeletError:
            with self._lock:
                self._in_use = self._held.in_use()
            raise
        with self._lock:
            known = self._devices.get(resource, {})
            devices = tuple(known.get(name, Device(name)) for name in sorted(chosen))
            self._held.insert(Grant(uid, container, resource, devices, injection))
        self._save()
        self._note("allocated", resource, f"{uid}/{container}: {', '.join(sorted(chosen))}")

    def _choose(
        self,
        uid: str,
        container: str,
        resource: str,
        required: int,
        reusable: set[str],
        *,
        survivor: bool,
    ) -> list[str]:
        """Take devices for a container and mark them as used; [] if it needs no more."""
        chosen: list[str] = []
        with self._lock:
            held = self._held.ids(uid, container, resource)
            if held is not None and len(held) != required:
                raise AllocationError(
                    f'pod "{uid}" container "{container}" changed request for resource'
                    f' "{resource}" from {len(held)} to {required}'
                )
            if survivor:
                return []
            self._check_health(resource, held or frozenset())
            if held is not None:
                return []
            if self._take(resource, chosen, reusable, required):
                return chosen
            available = frozenset(self._healthy[resource] - self._in_use.get(resource, set()))
            missing = required - len(chosen)
            if len(available) < missing:
                raise AllocationError(
                    f"requested number of devices unavailable for {resource}."
                    f" Requested: {missing}, Available: {len(available)}"
                )
            parts = self._split(uid, container, resource, available)
            offered: frozenset[str] = parts.aligned
            rest: tuple[frozenset[str], ...] = (parts.aligned,)
            if missing >= len(parts.aligned):
                if self._take(resource, chosen, parts.aligned, required):
                    return chosen
                offered, rest = available, (parts.unaligned, parts.without)
            must = frozenset(chosen)
        # The plugin is asked without the lock: it may call PodResources meanwhile.
        preferred = self._prefer(resource, offered | must, must, required)
        with self._lock:
            for source in (preferred & offered, *rest):
                if self._take(resource, chosen, source, required):
                    return chosen
        raise AllocationError(
            f"unexpectedly allocated less resources than required."
            f" Requested: {required}, Got: {len(chosen)}"
        )

    def _check_health(self, resource: str, held: frozenset[str]) -> None:
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

    def _take(self, resource: str, chosen: list[str], source: Iterable[str], required: int) -> bool:
        """Take from `source` in any order until there are enough; tell whether there are."""
        used = self._in_use.setdefault(resource, set())
        for name in self._in_any_order(set(source).difference(chosen)):
            if len(chosen) == required:
                break
            used.add(name)
            chosen.append(name)
        return len(chosen) == required

    def _split(self, uid: str, container: str, resource: str, available: frozenset[str]) -> Split:
        affinity = self._affinity.get((uid, container))
        return split_devices(self._devices.get(resource, {}), available, affinity)

    def _prefer(
        self, resource: str, available: frozenset[str], must: frozenset[str], size: int
    ) -> frozenset[str]:
        with self._lock:
            endpoint = self._endpoints.get(resource)
            options = self._options.get(resource, Options())
        if endpoint is None:
            raise AllocationError(
                f"endpoint not found in cache for a registered resource: {resource}"
            )
        if not options.get_preferred_allocation_available:
            return frozenset()
        try:
            answer = endpoint.preferred_allocation(
                self._in_any_order(available), self._in_any_order(must), size
            )
        except PluginError as error:
            raise AllocationError(
                f"device plugin GetPreferredAllocation rpc failed with err: {error}"
            ) from error
        self._note("asked", resource, f"{size} of {len(available)}: {', '.join(answer)}")
        return frozenset(answer)

    def _pre_start(self, uid: str, container: str, resource: str) -> None:
        with self._lock:
            endpoint = self._endpoints.get(resource)
            options = self._options.get(resource, Options())
            held = self._held.ids(uid, container, resource)
        if endpoint is None:
            raise AllocationError(
                f"endpoint not found in cache for a registered resource: {resource}"
            )
        if not options.pre_start_required:
            return
        if held is None:
            raise AllocationError(f"no devices found allocated in local cache for pod {uid}")
        endpoint.pre_start(self._in_any_order(held))

    def _in_any_order(self, names: Iterable[str]) -> list[str]:
        shuffled = sorted(names)
        self._rng.shuffle(shuffled)
        return shuffled
