"""One node as the inventory knows it, for those who explain: who holds which GPU, and how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from scheduler.engine.reservations import Claim, Stage
from topology.errors import WireError
from topology.model import NodeTopology
from topology.wire import NodeState, decode_topology

Hold = Literal["real", "promised", "reserved", "held"]
"""How a GPU is held. ``real``: the kubelet gave it out. ``promised``: a bound pod's annotation
names it. ``reserved``: a bind is under way. ``held``: only planned."""

_STAGES: Final[dict[Stage, Hold]] = {
    Stage.HELD: "held",
    Stage.RESERVED: "reserved",
    Stage.BOUND: "reserved",
}


class PodSight(msgspec.Struct, frozen=True):
    """A pod with GPUs on a node. `uuids` is None if its set is not known."""

    uid: str
    key: str
    count: int
    uuids: frozenset[str] | None
    priority: int


class Account(msgspec.Struct, frozen=True):
    """What a node's annotations say, and the bound pods with GPUs that are there."""

    node: str
    allocatable: int
    raw_topology: str | None
    state: NodeState | None
    pods: tuple[PodSight, ...]

    def topology(self) -> NodeTopology | None:
        """Return the node's topology; None if there is none that reads."""
        if self.raw_topology is None:
            return None
        try:
            return decode_topology(self.raw_topology)
        except WireError:
            return None


class Holder(msgspec.Struct, frozen=True):
    """Who holds a GPU: ``namespace/name`` and UID, as far as they are known, and how."""

    pod: str
    uid: str
    how: Hold


def holders(account: Account, claims: Iterable[Claim]) -> dict[str, list[Holder]]:
    """Return who holds which GPU, by uuid. The real ones speak first, claims last."""
    keys = {pod.uid: pod.key for pod in account.pods}
    uids = {pod.key: pod.uid for pod in account.pods}
    found: dict[str, list[Holder]] = {}
    told: set[tuple[str, str]] = set()

    def add(uuid: str, holder: Holder) -> None:
        if (uuid, holder.uid or holder.pod) not in told:
            told.add((uuid, holder.uid or holder.pod))
            found.setdefault(uuid, []).append(holder)

    for name, uuids in (account.state.allocations if account.state is not None else {}).items():
        # Pods whose UID the node does not know stand there by their name.
        uid, key = (uids.get(name, ""), name) if "/" in name else (name, keys.get(name, ""))
        for uuid in uuids:
            add(uuid, Holder(key, uid, "real"))
    for pod in account.pods:
        for uuid in sorted(pod.uuids or ()):
            add(uuid, Holder(pod.key, pod.uid, "promised"))
    for claim in claims:
        if claim.node == account.node:
            for uuid in claim.uuids:
                add(uuid, Holder(keys.get(claim.uid, ""), claim.uid, _STAGES[claim.stage]))
    return found
