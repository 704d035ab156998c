"""Nodes and pods as the watches tell them -> rows of the cluster's state.

What follows for one node is `scheduler.kube.records.judge`'s to say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec

from runtime.errors import QuantityError
from runtime.objects import Node, Pod
from runtime.quantity import parse_count
from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts, Room, hardware_of
from scheduler.engine.request import NOTHING, Amounts
from scheduler.errors import DemandError
from scheduler.kube.account import Account, PodSight
from scheduler.kube.amounts import amounts_of, capacity_of
from scheduler.kube.pods import count_gpus, read_request, wants_gpus
from scheduler.kube.records import BoundPod, NodeRecord, drifted, judge
from topology.errors import WireError
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    TOPOLOGY_KEY,
    decode_assignment,
    decode_state,
    decode_topology,
)

Report = Callable[[str, str, str], None]
"""Told of each annotation that does not read: kind, name of the object, problem."""

_ROOM = ("cpu", "memory", "pods")

LEARNED_SECONDS = 30.0
"""How long a node that only a request body showed is kept without the watch confirming it."""


class Inventory:
    """Keeps the cluster's state in step with nodes and pods. One event costs microseconds.

    `nodes` and `pods` are the reflectors' sinks. `drifted` counts the pods that have other GPUs
    than were chosen for them.
    """

    def __init__(self, cluster: ClusterState, resource: str, report: Report) -> None:
        self._cluster = cluster
        self._resource = resource
        self._report = report
        self._records: dict[str, NodeRecord] = {}
        self._bound: dict[str, BoundPod] = {}
        self._homes: dict[str, str] = {}
        self._behind: set[str] = set()
        self.drifted = 0
        self._nodes_synced = False
        self._pods_synced = False
        self.nodes = _NodeSink(self)
        self.pods = _PodSink(self)

    @property
    def synced(self) -> bool:
        """Whether both first lists have come: before that nothing may be decided."""
        return self._nodes_synced and self._pods_synced

    @property
    def current(self) -> bool:
        """Whether it is being told of every change: what it lacks then is not there."""
        return not self._behind

    def follow(self, collection: str, open_: bool) -> None:
        """Note that the watch of a collection is open, or has ended."""
        (self._behind.discard if open_ else self._behind.add)(collection)

    def bound(self, uid: str) -> BoundPod | None:
        """Return a pod that the watch has shown to be bound."""
        return self._bound.get(uid)

    def node_of(self, uid: str) -> str | None:
        """Return the node that any pod is bound to, as far as the watch has shown."""
        return self._homes.get(uid)

    def knows(self, node: str) -> bool:
        """Return whether a node is there."""
        record = self._records.get(node)
        return record is not None and record.present

    def account(self, node: str) -> Account | None:
        """Return what is known of a node, None if it is not there."""
        record = self._records.get(node)
        if record is None or not record.present:
            return None
        pods = record.pods.values()
        return Account(
            node=node,
            allocatable=record.allocatable,
            raw_topology=record.raw_topology,
            state=record.state,
            pods=tuple(
                PodSight(pod.uid, pod.key, pod.count, pod.uuids, pod.priority) for pod in pods
            ),
        )

    def find(self, key: str) -> BoundPod | None:
        """Return the bound pod with GPUs of this ``namespace/name``."""
        return next((pod for pod in self._bound.values() if pod.key == key), None)

    def without(self, node: str, gone: tuple[BoundPod, ...]) -> tuple[NodeFacts, Room] | None:
        """Return what would be known of a node if these pods were gone, None if it is not there."""
        record = self._records.get(node)
        if record is None or not record.present:
            return None
        uids, names = {pod.uid for pod in gone}, {pod.uid for pod in gone} | {p.key for p in gone}
        twin = copy.copy(record)
        twin.pods = {uid: pod for uid, pod in record.pods.items() if uid not in uids}
        for uid in uids:
            twin.used -= record.users.get(uid, NOTHING)
        if record.state is not None:
            held = record.state.allocations
            kept = {who: uuids for who, uuids in held.items() if who not in names}
            twin.state = msgspec.structs.replace(record.state, allocations=kept)
        return judge(twin), Room(twin.capacity, twin.used)

    def learn(self, node: Node, now: float) -> None:
        """Take a node from a request body until the watch shows it, or for a while."""
        self.take_node(node)
        self._records[node.metadata.name].learned = now

    def forget_learned(self, now: float) -> None:
        """Drop the nodes that the watch did not confirm."""
        stale = [
            name
            for name, record in self._records.items()
            if record.learned is not None and now - record.learned > LEARNED_SECONDS
        ]
        for name in stale:
            self.drop_node(name)

    def take_nodes(self, nodes: tuple[Node, ...]) -> None:
        """Take a complete list."""
        names = {node.metadata.name for node in nodes}
        for name in [name for name in self._records if name not in names]:
            self.drop_node(name)
        for node in nodes:
            self.take_node(node)
        self._nodes_synced = True

    def take_node(self, node: Node) -> None:
        """Take a node's new state. One that changes nothing for us costs three comparisons."""
        meta = node.metadata
        record = self._records.get(meta.name)
        if record is None:
            record = self._records[meta.name] = NodeRecord()
        record.learned = None
        allocatable = node.status.allocatable or {}
        raw_allocatable = allocatable.get(self._resource)
        raw_room = tuple(map(allocatable.get, _ROOM))
        if record.raw_room != raw_room:
            record.raw_room = raw_room
            record.capacity = capacity_of(allocatable)
            self._write_room(meta.name, record)
        raw_topology, raw_state = meta.annotation(TOPOLOGY_KEY), meta.annotation(STATE_KEY)
        if (
            record.present
            and record.raw_topology == raw_topology
            and record.raw_state == raw_state
            and record.raw_allocatable == raw_allocatable
        ):
            return
        if record.raw_topology != raw_topology:
            record.raw_topology = raw_topology
            self._read_topology(meta.name, record)
        if record.raw_state != raw_state:
            record.raw_state = raw_state
            self._read_state(meta.name, record)
        if record.raw_allocatable != raw_allocatable:
            record.raw_allocatable = raw_allocatable
            record.allocatable = self._read_count(meta.name, raw_allocatable)
        fresh = not record.present
        record.present = True
        self._write(meta.name, record)
        if fresh:
            self._write_room(meta.name, record)

    def drop_node(self, name: str) -> None:
        """Take a node's end; its pods are remembered until they are gone too."""
        record = self._records.get(name)
        if record is None:
            return
        self._cluster.drop(name)
        self._count_drift(record, 0)
        del self._records[name]
        if record.pods or record.users:
            self._records[name] = left = NodeRecord()
            left.pods, left.users, left.used = record.pods, record.users, record.used

    def take_pods(self, pods: tuple[Pod, ...]) -> None:
        """Take a complete list. Claims of pods that it lacks are left to the binder to settle."""
        uids = {pod.metadata.uid for pod in pods}
        for uid in [uid for uid in self._bound if uid not in uids]:
            self._unbind(uid)
        for uid in [uid for uid in self._homes if uid not in uids]:
            self._move_out(uid)
        for pod in pods:
            self.take_pod(pod)
        self._pods_synced = True

    def take_pod(self, pod: Pod) -> None:
        """Take a pod's new state. One without GPUs counts by what it takes of CPU and memory."""
        uid = pod.metadata.uid
        if pod.finished:
            self.drop_pod(uid)
            return
        if not pod.spec.node_name:
            return
        self._move_in(uid, pod.spec.node_name, amounts_of(pod))
        if not wants_gpus(pod, self._resource):
            self._cluster.release(uid)
            return
        known = self._bound.get(uid)
        bound = self._read_pod(pod, pod.spec.node_name)
        if known != bound:
            if known is not None:
                self._unbind(uid)
            self._bound[uid] = bound
            record = self._records.setdefault(bound.node, NodeRecord())
            record.pods[uid] = bound
            self._write(bound.node, record)
        # From here on the pod's own annotation speaks for its GPUs.
        self._cluster.release(uid)

    def drop_pod(self, uid: str) -> None:
        """Take a pod's end."""
        self._unbind(uid)
        self._move_out(uid)
        self._cluster.release(uid)

    def _unbind(self, uid: str) -> None:
        bound = self._bound.pop(uid, None)
        if bound is None:
            return
        record = self._records[bound.node]
        del record.pods[uid]
        if record.present:
            self._write(bound.node, record)
        else:
            self._forget_empty(bound.node, record)

    def _move_in(self, uid: str, node: str, amounts: Amounts) -> None:
        """Count what a pod takes of its node. Its requests may change while it runs."""
        record = self._records.get(node)
        if record is None:
            record = self._records[node] = NodeRecord()
        before = record.users.get(uid, NOTHING)
        if before == amounts:
            return
        self._homes[uid] = node
        record.users[uid] = amounts
        record.used += amounts - before
        self._write_room(node, record)

    def _move_out(self, uid: str) -> None:
        node = self._homes.pop(uid, None)
        if node is None:
            return
        record = self._records[node]
        record.used -= record.users.pop(uid)
        if record.present:
            self._write_room(node, record)
        else:
            self._forget_empty(node, record)

    def _forget_empty(self, node: str, record: NodeRecord) -> None:
        if not record.pods and not record.users:
            del self._records[node]

    def _write_room(self, name: str, record: NodeRecord) -> None:
        if record.present:
            self._cluster.put_room(name, Room(record.capacity, record.used))

    def _write(self, name: str, record: NodeRecord) -> None:
        if record.present:
            self._cluster.put(name, judge(record))
            self._count_drift(record, drifted(record))

    def _count_drift(self, record: NodeRecord, now: int) -> None:
        self.drifted += now - record.drifted
        record.drifted = now

    def _read_count(self, name: str, allocatable: str | None) -> int:
        if allocatable is None:
            return 0
        try:
            return parse_count(allocatable)
        except QuantityError as error:
            self._report("node", name, f"allocatable: {error}")
            return 0

    def _read_topology(self, name: str, record: NodeRecord) -> None:
        record.hardware, record.uuids = None, ()
        if record.raw_topology is None:
            return
        try:
            topology = decode_topology(record.raw_topology)
        except WireError as error:
            self._report("node", name, str(error))
            return
        record.hardware = hardware_of(topology)
        record.uuids = tuple(gpu.uuid for gpu in topology.gpus)

    def _read_state(self, name: str, record: NodeRecord) -> None:
        record.state = None
        if record.raw_state is None:
            return
        try:
            record.state = decode_state(record.raw_state)
        except WireError as error:
            self._report("node", name, str(error))

    def _read_pod(self, pod: Pod, node: str) -> BoundPod:
        known = self._bound.get(pod.metadata.uid)
        if known is not None and known.node == node:
            # The set and the counts of a bound pod never change.
            return known
        uuids: frozenset[str] | None = None
        raw = pod.metadata.annotation(ASSIGNMENT_KEY)
        if raw is not None:
            try:
                uuids = decode_assignment(raw).uuids()
            except WireError as error:
                self._report("pod", pod.key, str(error))
        try:
            request = read_request(pod, self._resource)
        except DemandError:
            request = None
        if request is not None:
            self._cluster.outlook.observe(request)
        return BoundPod(
            uid=pod.metadata.uid,
            key=pod.key,
            node=node,
            count=count_gpus(pod, self._resource),
            uuids=uuids,
            priority=pod.spec.priority or 0,
        )


class _NodeSink:
    """The nodes' reflector speaks to this."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def listed(self, objects: tuple[Node, ...]) -> None:
        """Take a complete list."""
        self._inventory.take_nodes(objects)

    def changed(self, obj: Node) -> None:
        """Take a new or changed node."""
        self._inventory.take_node(obj)

    def deleted(self, obj: Node) -> None:
        """Take a node's end."""
        self._inventory.drop_node(obj.metadata.name)


class _PodSink:
    """The pods' reflector speaks to this."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Take a complete list."""
        self._inventory.take_pods(objects)

    def changed(self, obj: Pod) -> None:
        """Take a new or changed pod."""
        self._inventory.take_pod(obj)

    def deleted(self, obj: Pod) -> None:
        """Take a pod's end."""
        self._inventory.drop_pod(obj.metadata.uid)
