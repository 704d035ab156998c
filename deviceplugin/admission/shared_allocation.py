"""Which replicas or MIG instances a container should get. Pure.

The scheduler's set comes first, as for whole GPUs. Then the policy decides on which GPU: the one
that is used least, or most. Where it finds GPUs equal, their place in the topology decides, so
that a container with several devices gets linked ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from deviceplugin.admission.allocation import Chooser, Plan, Request, Taken, Wanted
from deviceplugin.config.model import SharedPolicy
from deviceplugin.errors import (
    HeldDeviceError,
    RequestError,
    SharingError,
    StrictRefusalError,
)
from deviceplugin.outcomes import Drift, Outcome
from deviceplugin.resources.devices import Device, Resource, by_index
from topology.gpuset import GpuSet, gpuset, positions, size


class SharedCircumstances(msgspec.Struct, frozen=True):
    """What else is known: `held` maps device ids to pods, `promised` are uuids bound to others."""

    held: dict[str, str] = {}
    promised: frozenset[str] = frozenset()


def plan_shared(
    request: Request,
    wanted: Wanted,
    circumstances: SharedCircumstances,
    resource: Resource,
    *,
    policy: SharedPolicy,
    choose: Chooser | None,
) -> Plan:
    """Return the devices to prefer, by their ids.

    `wanted` may name GPUs, MIG instances, or devices by id; one replica is taken for each name.
    `choose` None leaves the topology out of account.
    Raises RequestError for a question without an answer, HeldDeviceError when too few devices are
    with no live pod, SharingError when two replicas would be of one GPU against the rule,
    StrictRefusalError for a strict pod that cannot have its set.
    """
    offered = {one: resource.by_id[one] for one in request.available if one in resource.by_id}
    must = {one: resource.by_id[one] for one in request.must if one in resource.by_id}
    _check(request, offered | must)
    free = _free(request, offered | must, must, circumstances)
    basket = _Basket(resource, free, must)
    drift = _take_wanted(basket, request, wanted)
    if drift is None and wanted.uuids is not None:
        return Plan(basket.ids(), Outcome.EXACT)
    if drift is not None and wanted.strict:
        raise StrictRefusalError(wanted.uuids, str(drift))
    _fill(basket, request.size, policy, circumstances.promised, choose)
    return Plan(basket.ids(), Outcome.BEST if drift is None else Outcome.DRIFT, drift)


class _Basket:
    """The devices taken so far, and those that can still be, by GPU or instance.

    All devices of one uuid are equal, so only the first of each is ever compared.
    """

    def __init__(
        self, resource: Resource, free: Mapping[str, Device], must: Mapping[str, Device]
    ) -> None:
        self.distinct = resource.distinct
        self.taken = dict(must)
        self.left: dict[str, list[Device]] = {}
        for device in sorted(free.values(), key=by_index):
            if device.id not in must:
                self.left.setdefault(device.uuid, []).append(device)
        # Whatever is not on offer is in use, or as good as.
        busy = [one for one in resource.devices if one.id not in free or one.id in must]
        self.used = Counter(device.uuid for device in busy)
        self.used_of_gpu = Counter(device.gpu for device in busy)
        self.picked = Counter(device.uuid for device in must.values())

    def candidates(self) -> list[Device]:
        """Return the next device of each GPU or instance, in index order."""
        return [
            devices[0]
            for uuid, devices in self.left.items()
            if devices and not (self.distinct and self.picked[uuid])
        ]

    def named(self, name: str) -> list[Device]:
        """Return what may be taken of a GPU, an instance or a device by its name."""
        return [
            device
            for uuid, devices in self.left.items()
            if not (self.distinct and self.picked[uuid])
            for device in devices
            if device.is_called(name)
        ]

    def room(self, device: Device) -> int:
        """Return how many devices are left of the same GPU or instance."""
        return len(self.left[device.uuid])

    def take(self, device: Device) -> None:
        """Take a device."""
        self.left[device.uuid].remove(device)
        self.taken[device.id] = device
        self.used[device.uuid] += 1
        self.used_of_gpu[device.gpu] += 1
        self.picked[device.uuid] += 1

    def places(self) -> GpuSet:
        """Return the GPUs of what has been taken."""
        return gpuset(device.position for device in self.taken.values())

    def ids(self) -> tuple[str, ...]:
        """Return what has been taken, in index order."""
        return tuple(device.id for device in sorted(self.taken.values(), key=by_index))


def _check(request: Request, offered: Mapping[str, Device]) -> None:
    if request.size < 1:
        raise RequestError(f"allocation_size is {request.size}")
    for one in request.must:
        if one not in request.available:
            raise RequestError(f"must_include_deviceIDs: {one} is not among the available ones")
        if one not in offered:
            raise RequestError(f"must_include_deviceIDs names {one}, which this node does not have")
    if len(set(request.must)) > request.size:
        raise RequestError(
            f"{len(set(request.must))} devices must be included, {request.size} asked"
        )
    if len(offered) < request.size:
        raise RequestError(f"{request.size} devices asked, {len(offered)} known ones available")


def _free(
    request: Request,
    offered: Mapping[str, Device],
    must: Mapping[str, Device],
    circumstances: SharedCircumstances,
) -> dict[str, Device]:
    """Return what can be had: healthy and held by nobody; failed ones too if there is no way."""
    taken = Taken(circumstances.held)
    unheld = {
        one: device for one, device in offered.items() if one in must or taken.by(device) is None
    }
    if len(unheld) < request.size:
        first = min((offered[one] for one in offered.keys() - unheld.keys()), key=by_index)
        raise HeldDeviceError(first.id, taken.by(first) or "")
    well = {one: device for one, device in unheld.items() if one in must or not device.problem}
    return well if len(well) >= request.size else unheld


def _take_wanted(basket: _Basket, request: Request, wanted: Wanted) -> Drift | None:
    """Take one device for each name that is wanted; return why that is not the whole answer."""
    if wanted.uuids is None:
        return wanted.drift
    drift: Drift | None = None
    if len(wanted.uuids) != request.size:
        drift = Drift.WRONG_SIZE
    insisted = list(basket.taken.values())
    for name in wanted.uuids:
        match = next((device for device in insisted if device.is_called(name)), None)
        if match is not None:
            insisted.remove(match)
            continue
        named = basket.named(name)
        well = [device for device in named if not device.problem]
        if not well:
            drift = drift or (Drift.UNHEALTHY if named else Drift.NOT_OFFERED)
        elif len(basket.taken) < request.size:
            basket.take(well[0])
    if insisted:
        drift = drift or Drift.MUST_INCLUDE
    return drift or wanted.drift


def _fill(
    basket: _Basket,
    count: int,
    policy: SharedPolicy,
    promised: frozenset[str],
    choose: Chooser | None,
) -> None:
    while len(basket.taken) < count:
        candidates = basket.candidates()
        if not candidates:
            missing = count - len(basket.taken)
            raise SharingError(f"{missing} more replicas would be of GPUs that were taken before")
        rank = _rank_distributed if policy is SharedPolicy.DISTRIBUTED else _rank_packed
        ranks = {device.id: rank(basket, device, promised) for device in candidates}
        best = min(ranks.values())
        equal = [device for device in candidates if ranks[device.id] == best]
        missing = count - len(basket.taken)
        if policy is SharedPolicy.PACKED:
            missing = -(-missing // _room_of_one(basket, equal))
        basket.take(_by_place(basket, equal, missing, choose))


def _rank_distributed(basket: _Basket, device: Device, promised: frozenset[str]) -> tuple[int, ...]:
    """Prefer the GPU that is used least; of equal ones the one picked least in this call."""
    return (
        basket.used[device.uuid],
        basket.picked[device.uuid],
        basket.used_of_gpu[device.gpu],
        len(promised & {device.uuid, device.gpu}),
    )


def _rank_packed(basket: _Basket, device: Device, promised: frozenset[str]) -> tuple[int, ...]:
    """Prefer the GPU that is used most and has room."""
    return (
        -basket.used[device.uuid],
        -basket.used_of_gpu[device.gpu],
        len(promised & {device.uuid, device.gpu}),
    )


def _by_place(basket: _Basket, equal: list[Device], gpus: int, choose: Chooser | None) -> Device:
    """Return the device among equal ones whose GPU goes best with those that are taken.

    `gpus` is how many of their GPUs will be taken before others come to their turn.
    """
    before = basket.places()
    fresh = GpuSet(gpuset(device.position for device in equal) & ~before)
    if choose is None or size(fresh) < 2:  # with one there is no choice
        return equal[0]
    chosen = choose(GpuSet(fresh | before), min(gpus, size(fresh)) + size(before), before)
    first = next(positions(GpuSet(chosen & ~before)))
    return next(device for device in equal if device.position == first)


def _room_of_one(basket: _Basket, equal: Iterable[Device]) -> int:
    """Return how many devices one of the equal GPUs can still give."""
    room: Counter[str] = Counter()
    for device in equal:
        room[device.gpu] += basket.room(device)
    return max(room.values())
