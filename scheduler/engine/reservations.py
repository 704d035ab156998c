"""Claims on GPUs that no annotation speaks of yet: planned in filter, written in bind.

A claim names GPUs by uuid, so it outlives whatever happens to the node's row. One pod has at most
one claim, and nobody claims of a GPU what others have claimed of it.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from scheduler.engine.request import NOTHING, WHOLE_GPU_MILLI, WHOLE_GPUS, Amounts, Wants
from scheduler.errors import ReservationError


class Stage(Enum):
    """How far a claim has come."""

    HELD = "held"
    """Planned: expires by itself, may be replaced."""
    RESERVED = "reserved"
    """A Binding with this set may be on its way: only the API server can say that it is not."""
    BOUND = "bound"
    """The API server took the Binding; the watch has not shown it yet."""


class Claim(msgspec.Struct, frozen=True):
    """A pod's set on a node. `expires` is None unless it is only held; times are in seconds.

    `wants` is what it takes of each GPU of the set, and beside GPUs.
    """

    uid: str
    node: str
    uuids: tuple[str, ...]
    stage: Stage
    since: float
    expires: float | None = None
    wants: Wants = WHOLE_GPUS


class Reservations:
    """All claims, by pod and by node."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._on_node: dict[str, dict[str, Claim]] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def copy(self) -> Reservations:
        """Return a twin that changes by itself."""
        twin = Reservations()
        twin._claims = dict(self._claims)
        twin._on_node = {node: dict(claims) for node, claims in self._on_node.items()}
        return twin

    def get(self, uid: str) -> Claim | None:
        """Return a pod's claim."""
        return self._claims.get(uid)

    def all(self) -> tuple[Claim, ...]:
        """Return every claim."""
        return tuple(self._claims.values())

    def planned_nodes(self, *, but: str = "") -> set[str]:
        """Return the nodes on which sets are only held, for anybody but the pod `but`."""
        return {
            claim.node
            for claim in self._claims.values()
            if claim.stage is Stage.HELD and claim.uid != but
        }

    def claimed(self, node: str, *, but: str = "", plans: bool = True) -> dict[str, int]:
        """Return what is claimed on a node by anybody but the pod `but`: uuid -> thousandths.

        Without `plans` what is only held is left out.
        """
        taken: dict[str, int] = {}
        for claim in self._on_node.get(node, {}).values():
            if claim.uid != but and (plans or claim.stage is not Stage.HELD):
                for uuid in claim.uuids:
                    taken[uuid] = taken.get(uuid, 0) + claim.wants.share_milli
        return taken

    def amounts(self, node: str) -> Amounts:
        """Return what is claimed on a node beside GPUs."""
        total = NOTHING
        for claim in self._on_node.get(node, {}).values():
            total += claim.wants.amounts
        return total

    def hold(
        self,
        uid: str,
        node: str,
        uuids: tuple[str, ...],
        *,
        now: float,
        seconds: float,
        wants: Wants = WHOLE_GPUS,
    ) -> Claim:
        """Plan a set for a pod until `now` + `seconds`, in place of an earlier plan.

        Raises ReservationError if a GPU is another's, or the pod's claim is past planning.
        """
        self._check(uid, node, uuids, wants)
        earlier = self._claims.get(uid)
        if earlier is not None and earlier.stage is not Stage.HELD:
            raise ReservationError(uid, node, f"already {earlier.stage.value} on {earlier.node}")
        return self._write(Claim(uid, node, uuids, Stage.HELD, now, now + seconds, wants))

    def reserve(
        self,
        uid: str,
        node: str,
        uuids: tuple[str, ...],
        *,
        now: float,
        wants: Wants = WHOLE_GPUS,
    ) -> Claim:
        """Fix a set for the Binding; the same again changes nothing.

        Raises ReservationError if a GPU is another's, or the pod has another set for its Binding.
        """
        self._check(uid, node, uuids, wants)
        earlier = self._claims.get(uid)
        if earlier is not None and earlier.stage is not Stage.HELD:
            if (earlier.node, frozenset(earlier.uuids)) == (node, frozenset(uuids)):
                return earlier
            raise ReservationError(uid, node, f"already {earlier.stage.value} on {earlier.node}")
        return self._write(Claim(uid, node, uuids, Stage.RESERVED, now, None, wants))

    def confirm(self, uid: str, *, now: float) -> Claim | None:
        """Note that the Binding was taken; None if the watch was faster and ended the claim."""
        claim = self._claims.get(uid)
        if claim is None:
            return None
        if claim.stage is Stage.HELD:
            raise ReservationError(uid, claim.node, "confirmed without being reserved")
        return self._write(msgspec.structs.replace(claim, stage=Stage.BOUND, since=now))

    def release(self, uid: str) -> Claim | None:
        """End a pod's claim, whatever its stage; None if there is none."""
        claim = self._claims.pop(uid, None)
        if claim is not None:
            self._forget(claim)
        return claim

    def expire(self, now: float) -> tuple[Claim, ...]:
        """End the plans whose time has come, and return them."""
        ended = tuple(
            claim
            for claim in self._claims.values()
            if claim.expires is not None and claim.expires <= now
        )
        for claim in ended:
            self.release(claim.uid)
        return ended

    def _check(self, uid: str, node: str, uuids: tuple[str, ...], wants: Wants) -> None:
        if len(set(uuids)) != len(uuids):
            raise ReservationError(uid, node, "a GPU is named twice")
        taken = self.claimed(node, but=uid)
        over = [uuid for uuid in uuids if taken.get(uuid, 0) + wants.share_milli > WHOLE_GPU_MILLI]
        if over:
            raise ReservationError(uid, node, f"{min(over)} is claimed by another pod")

    def _write(self, claim: Claim) -> Claim:
        earlier = self._claims.get(claim.uid)
        if earlier is not None:
            self._forget(earlier)
        self._claims[claim.uid] = claim
        self._on_node.setdefault(claim.node, {})[claim.uid] = claim
        return claim

    def _forget(self, claim: Claim) -> None:
        on_node = self._on_node[claim.node]
        del on_node[claim.uid]
        if not on_node:
            del self._on_node[claim.node]
