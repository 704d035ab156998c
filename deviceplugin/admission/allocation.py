"""Which GPUs a container should get, and what it is told about them. Pure.

kubelet keeps the books: GetPreferredAllocation only states a wish among what kubelet offers.
The wish is the set that the pod was bound with. Where that cannot be, the rest of this file says
what comes nearest without taking what another pod was promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from deviceplugin.errors import (
    HeldDeviceError,
    RequestError,
    SharingError,
    StrictRefusalError,
    UnhealthyDeviceError,
    UnknownDeviceError,
)
from deviceplugin.outcomes import Drift, Outcome
from deviceplugin.resources.devices import CORDONED, Device, Resource, uuid_of
from topology.gpuset import EMPTY, GpuSet, positions, size
from topology.model import NodeTopology

Chooser = Callable[[GpuSet, int, GpuSet], GpuSet]
"""(free, how many, must): the best set of that size within `free` that contains `must`.

`must` is part of `free`, and `free` has at least that many GPUs.
"""


class Request(msgspec.Struct, frozen=True):
    """One container's question: choose `size` of `available`, those of `must` among them."""

    available: tuple[str, ...]
    must: tuple[str, ...]
    size: int


class Circumstances(msgspec.Struct, frozen=True):
    """What else is known at that moment, each a set of positions.

    `unhealthy` GPUs have failed, `held` ones are with another live pod according to kubelet,
    `promised` ones were bound to other pods that kubelet has not admitted yet, or may be with one.
    """

    unhealthy: GpuSet = EMPTY
    held: GpuSet = EMPTY
    promised: GpuSet = EMPTY


class Wanted(msgspec.Struct, frozen=True):
    """What the asking pod was bound with.

    `uuids` is its set for the container, None if it has none: then `drift` tells why, and is None
    too when there is nothing wrong with that (a pod that another scheduler bound). `strict` is
    the pod's own wish to be refused rather than to get another set.
    """

    uuids: tuple[str, ...] | None = None
    drift: Drift | None = None
    strict: bool = False


class Plan(msgspec.Struct, frozen=True):
    """The answer: device ids in index order, how it came about, and what it took from others.

    The id of a whole GPU is its uuid. `promised_taken` counts the GPUs that were promised to
    another pod, wanted ones apart.
    """

    uuids: tuple[str, ...]
    outcome: Outcome
    drift: Drift | None = None
    promised_taken: int = 0


def plan(
    request: Request,
    wanted: Wanted,
    circumstances: Circumstances,
    topology: NodeTopology,
    choose: Chooser,
) -> Plan:
    """Return the set to prefer.

    The wanted set if it can be had. Otherwise the drift is named and, unless the pod is strict,
    the container gets what kubelet insists on, then as many of the wanted GPUs as there are (the
    scheduler has set those aside, so they are the only ones sure to be nobody else's), and the
    rest so that the whole is the best set that leaves alone what other pods were promised. A
    promised GPU is taken only when there is no other way: failing this pod would not bring the
    other one its set back.

    Raises RequestError for a question without an answer (more GPUs than are offered, a `must`
    that is not offered), HeldDeviceError when the offer has too few GPUs that no live pod holds,
    StrictRefusalError for a strict pod that cannot have its set.
    """
    where = topology.position_of()
    must = _known(request.must, where)
    offered = GpuSet(_known(request.available, where) | must)
    _check_request(request, offered, must)
    # What kubelet insists on is the container's already, whatever else is said of it.
    usable = GpuSet(offered & ~((circumstances.unhealthy | circumstances.held) & ~must))
    if size(usable) < request.size:
        usable = _not_held(request, offered, must, circumstances.held, topology)

    offer = _Offer(usable, must, circumstances.unhealthy)
    drift, near = _compare(request, wanted, offer, where)
    if drift is None and wanted.uuids is not None:
        return Plan(_uuids(near, topology), Outcome.EXACT)
    if drift is not None and wanted.strict:
        raise StrictRefusalError(wanted.uuids, str(drift))
    members = _fill(request.size, near, offer, circumstances.promised, choose)
    return Plan(
        _uuids(members, topology),
        Outcome.BEST if drift is None else Outcome.DRIFT,
        drift,
        size(GpuSet(members & circumstances.promised & ~near)),
    )


class _Offer(msgspec.Struct, frozen=True):
    """What there is to choose from: `must` is part of `usable`, `unhealthy` need not be."""

    usable: GpuSet
    must: GpuSet
    unhealthy: GpuSet


def _check_request(request: Request, offered: GpuSet, must: GpuSet) -> None:
    if request.size < 1:
        raise RequestError(f"allocation_size is {request.size}")
    for uuid in request.must:
        if uuid not in request.available:
            raise RequestError(f"must_include_deviceIDs: {uuid} is not among the available ones")
    if len(set(request.must)) > request.size:
        raise RequestError(f"{len(set(request.must))} GPUs must be included, {request.size} asked")
    if size(offered) < request.size:
        raise RequestError(f"{request.size} GPUs asked, {size(offered)} known ones available")
    if size(must) != len(set(request.must)):
        raise RequestError("must_include_deviceIDs names a GPU that this node does not have")


def _not_held(
    request: Request, offered: GpuSet, must: GpuSet, held: GpuSet, topology: NodeTopology
) -> GpuSet:
    """Return the offer without what other pods hold, failed GPUs included.

    kubelet refuses a failed GPU by itself, and may know better; but one GPU given to two pods is
    the one thing worse than a refused pod.
    """
    free = GpuSet(offered & ~(held & ~must))
    if size(free) < request.size:
        first = next(positions(GpuSet(offered & held & ~must)))
        raise HeldDeviceError(topology.gpus[first].uuid)
    return free


def _compare(
    request: Request, wanted: Wanted, offer: _Offer, where: Mapping[str, int]
) -> tuple[Drift | None, GpuSet]:
    """Return why the wanted set cannot be had (None: it can, or none is), and its usable part."""
    if wanted.uuids is None:
        return wanted.drift, EMPTY
    goal = _known(wanted.uuids, where)
    near = GpuSet(goal & offer.usable)
    if size(goal) != len(wanted.uuids):
        return Drift.BROKEN_ANNOTATION, near
    if size(goal) != request.size:
        return Drift.WRONG_SIZE, near
    if goal & offer.unhealthy & ~offer.must:
        return Drift.UNHEALTHY, near
    if near != goal:
        return Drift.NOT_OFFERED, near
    if offer.must & ~goal:
        return Drift.MUST_INCLUDE, near
    return None, near


def _fill(count: int, near: GpuSet, offer: _Offer, promised: GpuSet, choose: Chooser) -> GpuSet:
    """Return `count` GPUs: what must be, then of `near`, then unpromised ones, then the others."""
    first = GpuSet(near | offer.must)
    if size(first) > count:
        return choose(first, count, offer.must)
    quiet = GpuSet(offer.usable & (~promised | first))
    if size(quiet) >= count:
        return choose(quiet, count, first)
    return choose(offer.usable, count, quiet)


def check_devices(
    asked: Iterable[str], resource: Resource, held: Mapping[str, str]
) -> tuple[Device, ...]:
    """Return the devices that kubelet gives a container, in its order.

    Raises UnknownDeviceError, UnhealthyDeviceError or HeldDeviceError naming the first id that
    cannot be given, SharingError for more replicas than the resource allows: kubelet fails the
    pod for good, so `held` (device id to pod) may only contain what kubelet itself has just
    confirmed.
    """
    devices: list[Device] = []
    taken = Taken(held)
    for one in asked:
        device = resource.by_id.get(one)
        if device is None:
            raise UnknownDeviceError(one)
        # kubelet may give a cordoned one just before it hears of it: no reason to fail a pod.
        if device.problem and device.problem != CORDONED:
            raise UnhealthyDeviceError(one)
        holder = taken.by(device)
        if holder is not None:
            raise HeldDeviceError(one, holder)
        devices.append(device)
    replicas = sum(device.replicas > 1 for device in devices)
    if resource.one_each and replicas and len(devices) > 1:
        raise SharingError(f"{len(devices)} replicas of {resource.name} asked; one is allowed")
    if resource.distinct and len({device.uuid for device in devices}) < len(devices):
        raise SharingError(f"two replicas of {resource.name} would be of one GPU")
    return tuple(devices)


class Taken:
    """Which devices are with other pods, also as a whole or as a part of what is offered now.

    A pod keeps what it got before the configuration changed: the GPU that it has for itself is not
    shared, and one that is shared still is not given out whole.
    """

    def __init__(self, held: Mapping[str, str]) -> None:
        self._held = held
        self._parts = {uuid_of(one): pod for one, pod in held.items()}

    def by(self, device: Device) -> str | None:
        """Return the pod that has the device, None if none has."""
        for name in (device.id, device.uuid, device.gpu):
            if name in self._held:
                return self._held[name]
        return self._parts.get(device.uuid) if device.replicas == 1 else None


def _known(uuids: Iterable[str], where: Mapping[str, int]) -> GpuSet:
    mask = 0
    for uuid in uuids:
        if uuid in where:
            mask |= 1 << where[uuid]
    return GpuSet(mask)


def _uuids(members: GpuSet, topology: NodeTopology) -> tuple[str, ...]:
    chosen = [topology.gpus[position] for position in positions(members)]
    return tuple(gpu.uuid for gpu in sorted(chosen, key=lambda gpu: gpu.index))
