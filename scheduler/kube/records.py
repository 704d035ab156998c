"""What is known of one node, and what follows from it. Pure.

A GPU is free when it is healthy, nobody really has it, and it is promised to nobody: real
allocations come from the node's state annotation and stay in force until the plugin publishes
without them (kubelet frees late); promises are the annotations of pods that are bound to the node,
not finished, and not yet among the real allocations.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scheduler.engine.columns import NO_PRIORITY, Hardware, NodeFacts
from scheduler.engine.request import NOTHING, Amounts
from topology.gpuset import GpuSet
from topology.wire import NodeState


class BoundPod(msgspec.Struct, frozen=True):
    """A pod with GPUs that is bound and not finished. `uuids` is None if its set is not known.

    `count` is how many GPUs it requests, 0 if that does not read.
    """

    uid: str
    key: str
    node: str
    count: int
    uuids: frozenset[str] | None
    priority: int = 0


class NodeRecord:
    """What is known of a node; `present` is false while only its pods are."""

    __slots__ = (
        "allocatable",
        "capacity",
        "drifted",
        "hardware",
        "learned",
        "pods",
        "present",
        "raw_allocatable",
        "raw_room",
        "raw_state",
        "raw_topology",
        "state",
        "used",
        "users",
        "uuids",
    )

    def __init__(self) -> None:
        self.present = False
        self.learned: float | None = None
        self.raw_allocatable: str | None = None
        self.raw_topology: str | None = None
        self.raw_state: str | None = None
        self.hardware: Hardware | None = None
        self.uuids: tuple[str, ...] = ()
        self.state: NodeState | None = None
        self.allocatable = 0
        self.pods: dict[str, BoundPod] = {}
        self.raw_room: tuple[str | None, ...] = ()
        self.capacity = NOTHING
        self.users: dict[str, Amounts] = {}
        self.used = NOTHING
        self.drifted = 0


def drifted(record: NodeRecord) -> int:
    """Return how many pods have other GPUs, by the node's state, than were chosen for them.

    A pod that is not read back in full, or whose set is not known, may yet have its own.
    """
    state = record.state
    if state is None or not state.allocations:
        return 0
    return sum(
        frozenset(state.allocations[pod.uid]) != pod.uuids
        for pod in record.pods.values()
        if pod.uuids is not None and pod.uid in state.allocations and _realised(pod, state)
    )


def judge(record: NodeRecord) -> NodeFacts:
    """Return what follows from a node's annotations and bound pods: the rule of this module."""
    lowest = min((pod.priority for pod in record.pods.values()), default=NO_PRIORITY)
    no_plugin = record.allocatable <= 0
    if record.hardware is None:
        # Without a topology there are no sets to keep apart: kube-scheduler's counting has to do.
        return NodeFacts(held_back=no_plugin, lowest_priority=lowest)
    # A state that does not read may tell of broken GPUs and of sets that came out differently.
    unreadable = record.raw_state is not None and record.state is None
    state = record.state or NodeState(generation=0)
    if record.uuids and state.withheld.keys() >= set(record.uuids):
        # Shared, or cut and offered as if whole: what is counted is not GPUs.
        return NodeFacts(held_back=no_plugin, lowest_priority=lowest)
    where = {uuid: 1 << position for position, uuid in enumerate(record.uuids)}
    unhealthy = _mask(where, state.unhealthy) | _mask(where, state.withheld)
    real = {holder: _mask(where, uuids) for holder, uuids in state.allocations.items()}
    occupied = 0
    for mask in real.values():
        occupied |= mask
    unknown = False
    for pod in record.pods.values():
        if _realised(pod, state):
            continue
        promised = _mask(where, pod.uuids or ())
        taken = any(
            mask & promised for holder, mask in real.items() if holder not in {pod.uid, pod.key}
        )
        # Which GPUs it will get is also unknown when somebody else really has its own, or when
        # its annotation names more or fewer than it requests: then it is not what we wrote.
        unknown |= taken or pod.uuids is None or promised.bit_count() != len(pod.uuids)
        unknown |= pod.uuids is not None and pod.count not in {0, len(pod.uuids)}
        occupied |= promised
    return NodeFacts(
        hardware=record.hardware,
        uuids=record.uuids,
        healthy=GpuSet(((1 << len(record.uuids)) - 1) & ~unhealthy),
        occupied=GpuSet(occupied),
        held_back=no_plugin or unknown or unreadable,
        lowest_priority=lowest,
    )


def _realised(pod: BoundPod, state: NodeState) -> bool:
    """Return whether the node's real allocations speak for this pod, in full.

    A pod is read back container by container, so fewer GPUs than requested are only a part. An
    entry under ``namespace/name`` may be a predecessor's of that name: it only speaks for a pod
    whose own set it is.
    """
    real = state.allocations.get(pod.uid)
    if real is not None:
        return len(real) >= max(pod.count, 1)
    named = state.allocations.get(pod.key)
    if named is None or len(named) < max(pod.count, 1):
        return False
    return pod.uuids is None or pod.uuids == frozenset(named)


def _mask(where: dict[str, int], uuids: Iterable[str]) -> int:
    """Return the set of those uuids that the node has, as bits."""
    mask = 0
    for uuid in uuids:
        mask |= where.get(uuid, 0)
    return mask
