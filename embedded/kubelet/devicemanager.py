"""The device manager: who holds which devices, and how a container gets its own.

It knows no socket and no clock of its own: plugins come as endpoints, chance and time are given.
The rules are kubelet's as seen on 1.36, with their traps: devices are freed late, chance fills
what the plugin leaves open, and devices of an Allocate in flight can be forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from embedded.kubelet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from embedded.kubelet.devices import (
    Device,
    Endpoint,
    Injection,
    Options,
    merge_injections,
)
from embedded.kubelet.errors import AdmissionError, AllocationError, KubeletError, PluginError
from embedded.kubelet.inventory import STOP_GRACE, Counts, Inventory
from embedded.kubelet.journal import What
from embedded.kubelet.numa import Nodes, Policy, make_hints, merge_hints, split_devices
from embedded.kubelet.poddevices import Grant, PodDevices
from embedded.kubelet.requests import init_containers, sidecar, whole_limits
from runtime.objects import Container, Pod


class DeviceManager:
    """The devices of one node, for one life of the kubelet process. Safe to share.

    `active` tells the UIDs of pods that may hold devices (it is called under the manager's lock),
    `note` writes the journal, `changed` is called after the node's numbers may have changed.
    `checkpoint` is the file to live on in.
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
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        stored = self._load()
        self._inventory = Inventory(stored.registered, clock(), stop_grace)
        self._held = PodDevices(stored.grants)
        self._in_use = self._held.in_use()
        self._reuse: tuple[str, dict[str, set[str]]] = ("", {})
        self._affinity: dict[tuple[str, str], Nodes] = {}
        self._sources_ready = False

    def close(self) -> None:
        """Write nothing down any more: the process has ended."""
        with self._writing:
            self._closed = True

    # Plugins

    def connected(self, resource: str, endpoint: Endpoint, options: Options) -> None:
        """Take a plugin that registered. Its devices come later; earlier ones stay as they are."""
        with self._lock:
            self._inventory.connect(resource, endpoint, options)

    def disconnected(self, resource: str, endpoint: Endpoint | None = None) -> None:
        """Take the end of a plugin's stream: all its devices are unhealthy from now on.

        With `endpoint`, only if that is the one in use.
        """
        with self._lock:
            if not self._inventory.disconnect(resource, endpoint, self._clock()):
                return
        self._note("disconnected", resource, "")
        self._changed()

    def listed(self, resource: str, devices: Iterable[Device]) -> None:
        """Take the list that a plugin has sent; it replaces what was known."""
        with self._lock:
            numbers = self._inventory.replace(resource, devices)
        self._save()
        self._note("listed", resource, numbers)
        self._changed()

    # What others see

    def counts(self) -> Counts:
        """Return the node's numbers; resources whose plugin is long gone are dropped here."""
        with self._lock:
            return self._inventory.counts(self._clock())

    def held_by(self, uid: str, container: str | None = None) -> tuple[Grant, ...]:
        """Return what a pod, or one of its containers, holds."""
        with self._lock:
            return self._held.grants(uid, container)

    def allocatable_devices(self) -> dict[str, tuple[Device, ...]]:
        """Return the healthy devices of each resource, used or not."""
        with self._lock:
            return self._inventory.allocatable()

    def in_use(self) -> dict[str, int]:
        """Return how many devices of each resource are taken."""
        with self._lock:
            return {resource: len(ids) for resource, ids in self._in_use.items()}

    def health_of(self, resource: str, device: str) -> bool | None:
        """Return a device's last reported health, None if it was never listed."""
        with self._lock:
            return self._inventory.health(resource, device)

    # Pods

    def sources_ready(self) -> None:
        """Let devices be freed from now on: all pods of the first list were looked at."""
        self._sources_ready = True

    def free_ended(self) -> None:
        """Take back the devices of pods that are no longer active."""
        if not self._sources_ready:
            return
        with self._lock:
            ended = self._held.pods() - self._active()
            if not ended:
                return
            self._held.delete(ended)
            # Built anew from what is recorded: devices that an Allocate in flight was asked
            # about are not recorded yet, and are forgotten here (kubernetes issue 137534).
            self._in_use = self._held.in_use()
            self._affinity = {k: v for k, v in self._affinity.items() if k[0] not in ended}

    def align(self, pod: Pod, container: Container) -> None:
        """Choose the NUMA nodes for a container. Raises AdmissionError if the policy refuses."""
        if self._policy == "none":
            return
        uid = pod.metadata.uid
        with self._lock:
            nodes = self._numa_nodes or self._inventory.numa_nodes()
            reuse = self._reuse[1] if self._reuse[0] == uid else {}
            hints = [
                make_hints(
                    self._inventory.devices(resource),
                    self._free(resource),
                    frozenset(reuse.get(resource, ())),
                    needed,
                    nodes,
                )
                for resource, needed in whole_limits(container).items()
                if self._knows(resource)
            ]
            best = merge_hints(hints, nodes, self._policy)
            self._affinity[uid, container.name] = best.nodes or frozenset()
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
        wanted = list(whole_limits(container).items())
        self._rng.shuffle(wanted)  # Go walks a map here
        known = [(name, needed) for name, needed in wanted if self._is_plugins(name)]
        if known:
            self.free_ended()
        for resource, needed in known:
            mine = reuse.get(resource, set())
            chosen = self._choose(uid, container.name, resource, needed, mine, survivor=survivor)
            if chosen:
                self._give(uid, container.name, resource, chosen)
        self._settle_reuse(pod, container, reuse)

    def run_options(self, pod: Pod, container: Container) -> tuple[tuple[str, ...], Injection]:
        """Return device IDs and injection for a container's start or restart.

        Calls PreStartContainer where asked for, and Allocate for a container that was admitted
        before its resource was known. Raises as `allocate` does.
        """
        uid = pod.metadata.uid
        missing = False
        for resource, needed in whole_limits(container).items():
            if needed and self._is_plugins(resource):
                self._pre_start(uid, container.name, resource)
                with self._lock:
                    missing |= self._held.ids(uid, container.name, resource) is None
        if missing:
            self.allocate(pod, container)
        grants = self.held_by(uid, container.name)
        ids = tuple(device.id for grant in grants for device in grant.devices)
        return ids, merge_injections([grant.injection for grant in grants])

    # Inside

    def _load(self) -> Checkpoint:
        try:
            return read_checkpoint(self._path)
        except KubeletError as error:
            self._note("trouble", self._path.name, str(error))
            return Checkpoint()

    def _save(self) -> None:
        with self._writing:
            if self._closed:
                return
            with self._lock:
                now = Checkpoint(self._held.grants(), self._inventory.registered())
            write_checkpoint(self._path, now)

    def _knows(self, resource: str) -> bool:
        return self._inventory.knows(resource) or resource in self._in_use

    def _is_plugins(self, resource: str) -> bool:
        with self._lock:
            return self._knows(resource)

    def _free(self, resource: str) -> frozenset[str]:
        return self._inventory.healthy(resource) - self._in_use.get(resource, set())

    def _settle_reuse(self, pod: Pod, container: Container, reuse: dict[str, set[str]]) -> None:
        initial = {each.name: each for each in init_containers(pod)}.get(container.name)
        with self._lock:
            for grant in self._held.grants(pod.metadata.uid, container.name):
                # What an init container used is there for the later ones, unless it stays.
                if initial is not None and not sidecar(initial):
                    reuse.setdefault(grant.resource, set()).update(grant.ids)
                else:
                    reuse.get(grant.resource, set()).difference_update(grant.ids)

    def _give(self, uid: str, container: str, resource: str, chosen: list[str]) -> None:
        try:
            with self._lock:
                endpoint, _ = self._inventory.plugin(resource)
            injection = endpoint.allocate(self._in_any_order(chosen))
        except KubeletError:
            with self._lock:
                self._in_use = self._held.in_use()
            raise
        with self._lock:
            known = self._inventory.devices(resource)
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
            self._inventory.check(resource, held or frozenset())
            if held is not None or self._take(resource, chosen, reusable, required):
                return chosen
            available = self._free(resource)
            missing = required - len(chosen)
            if len(available) < missing:
                raise AllocationError(
                    f"requested number of devices unavailable for {resource}."
                    f" Requested: {missing}, Available: {len(available)}"
                )
            affinity = self._affinity.get((uid, container))
            parts = split_devices(self._inventory.devices(resource), available, affinity)
            offered: frozenset[str] = parts.aligned
            rest: tuple[frozenset[str], ...] = (parts.aligned,)
            if missing >= len(parts.aligned):
                if self._take(resource, chosen, parts.aligned, required):
                    return chosen
                offered, rest = available, (parts.unaligned, parts.without)
        # The plugin is asked without the lock: it may call PodResources meanwhile.
        preferred = self._prefer(resource, offered, frozenset(chosen), required)
        with self._lock:
            for source in (preferred & offered, *rest):
                if self._take(resource, chosen, source, required):
                    return chosen
        raise AllocationError(
            f"unexpectedly allocated less resources than required."
            f" Requested: {required}, Got: {len(chosen)}"
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

    def _prefer(
        self, resource: str, offered: frozenset[str], must: frozenset[str], size: int
    ) -> frozenset[str]:
        with self._lock:
            endpoint, options = self._inventory.plugin(resource)
        if not options.get_preferred_allocation_available:
            return frozenset()
        available = offered | must
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
            endpoint, options = self._inventory.plugin(resource)
            held = self._held.ids(uid, container, resource)
        if not options.pre_start_required:
            return
        if held is None:
            raise AllocationError(f"no devices found allocated in local cache for pod {uid}")
        endpoint.pre_start(self._in_any_order(held))

    def _in_any_order(self, names: Iterable[str]) -> list[str]:
        shuffled = sorted(names)
        self._rng.shuffle(shuffled)
        return shuffled
