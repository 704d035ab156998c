"""The node's state as it is published: health, and who really holds what. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from deviceplugin.admission.asking import assignment_of
from deviceplugin.pods.holdings import Holdings, PodHoldings
from deviceplugin.resources.devices import uuid_of
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock
from runtime.objects import Pod
from topology.errors import WireError
from topology.wire import NodeState

CARRY_SECONDS: Final = 30.0
"""kubelet lists its pods within a few seconds of its start."""


class Held(msgspec.Struct, frozen=True):
    """What a pod holds, the UID it had then ("" if the watch did not know it), and when."""

    pod: PodHoldings
    uid: str
    seen: float


def on_gpus(holdings: Holdings, inventory: Inventory) -> Holdings:
    """Return the same with physical GPUs in place of replicas and MIG instances, each once."""
    gpu_of = {one.uuid: gpu for gpu, instances in inventory.mig.items() for one in instances}

    def translate(ids: tuple[str, ...]) -> tuple[str, ...]:
        uuids = (uuid_of(one) for one in ids)
        return tuple(dict.fromkeys(gpu_of.get(uuid, uuid) for uuid in uuids))

    return Holdings(
        {
            key: PodHoldings(key, {name: translate(ids) for name, ids in pod.containers.items()})
            for key, pod in holdings.pods.items()
        }
    )


def compose_state(stock: Stock, holdings: Holdings, pods: Mapping[str, Pod]) -> NodeState:
    """Return the state with generation 0.

    A pod is named by its UID where the watch knows it for certain, else by ``namespace/name``:
    PodResources has no UIDs. A pod that is still Pending with other GPUs than it was promised may
    be the successor, by name, of the one that kubelet means; calling it realised would free its
    promise. GPUs that the node no longer shows are left out.
    """
    inventory = stock.inventory
    known = inventory.topology.position_of()
    allocations: dict[str, tuple[str, ...]] = {}
    for key in sorted(holdings.pods):
        uuids = tuple(uuid for uuid in holdings.pods[key].uuids() if uuid in known)
        if uuids:
            allocations[_name_of(key, pods.get(key), uuids)] = tuple(
                sorted(uuids, key=known.__getitem__)
            )
    return NodeState(
        generation=0,
        resources=tuple(stock.division.resources),
        unhealthy=dict(sorted(inventory.unhealthy.items())),
        allocations=allocations,
        withheld=dict(sorted(stock.division.withheld.items())),
    )


def carry_over(
    before: Mapping[str, Held], holdings: Holdings, pods: Mapping[str, Pod], now: float
) -> dict[str, Held]:
    """Return what is to be believed after kubelet's newest answer, by ``namespace/name``.

    A kubelet that has just restarted shows no pods until it has heard of them, while their
    containers run on. So a pod that has vanished from its answer, and that the watch shows alive,
    still holds its GPUs, unless kubelet shows them with another pod, and for `CARRY_SECONDS` at
    most: the watch may be the one that is late.
    """
    held = {
        key: Held(one, uid=pods[key].metadata.uid if key in pods else "", seen=now)
        for key, one in holdings.pods.items()
    }
    given = holdings.holders().keys()
    for key, old in before.items():
        pod = pods.get(key)
        alive = pod is not None and pod.metadata.uid == old.uid and not pod.finished
        if key in held or not alive or now - old.seen >= CARRY_SECONDS:
            continue
        if given.isdisjoint(old.pod.uuids()):
            held[key] = old
    return held


def _name_of(key: str, pod: Pod | None, uuids: tuple[str, ...]) -> str:
    if pod is None or not pod.metadata.uid:
        return key
    if pod.status.phase == "Pending":
        try:
            assignment = assignment_of(pod)
        except WireError:
            assignment = None
        if assignment is not None and not assignment.uuids().issuperset(uuids):
            return key
    return pod.metadata.uid


def next_state(state: NodeState, before: NodeState | None) -> NodeState | None:
    """Return the state with its generation, None if nothing has changed since `before`."""
    if before is None:
        return msgspec.structs.replace(state, generation=1)
    if msgspec.structs.replace(state, generation=before.generation) == before:
        return None
    return msgspec.structs.replace(state, generation=before.generation + 1)


def judge_realised(holdings: Holdings, pods: Mapping[str, Pod]) -> dict[str, bool]:
    """Map the UID of each running annotated pod to whether it has exactly what it was promised."""
    verdicts: dict[str, bool] = {}
    for key, held in holdings.pods.items():
        pod = pods.get(key)
        if pod is None or pod.status.phase != "Running":
            continue
        try:
            assignment = assignment_of(pod)
        except WireError:
            continue
        if assignment is None:
            continue
        real = {name: frozenset(held.containers.get(name, ())) for name in assignment.containers}
        # What kubelet said during the pod's admission is older than the pod's phase.
        if all(real[name] for name, uuids in assignment.containers.items() if uuids):
            verdicts[pod.metadata.uid] = all(
                real[name] == frozenset(uuids) for name, uuids in assignment.containers.items()
            )
    return verdicts
