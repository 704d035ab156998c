"""Claims on GPUs that no annotation speaks of yet: planned in filter, written in bind.

A claim names GPUs by uuid, so it outlives whatever happens to the node's row. One pod has at most
one claim, and one GPU at most one claimant.
"""

from __future__ import annotations

from enum import Enum

import msgspec

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
    """A pod's set on a node. `expires` is None unless it is only held; times are in seconds."""

    uid: str
    node: str
    uuids: tuple[str, ...]
    stage: Stage
    since: float
    expires: float | None = None


class Reservations:
    """All claims, by pod and by node."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._on_node: dict[str, dict[str, Claim]] = {}

    def __len__(self) -> int:
        return len(self._claims)

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

    def claimed(self, node: str, *, but: str = "", plans: bool = True) -> tuple[str, ...]:
        """Return the uuids claimed on a node by anybody but the pod `but`.

        Without `plans` those that are only held are left out.
        """
        return tuple(
            uuid
            for claim in self._on_node.get(node, {}).values()
            if claim.uid != but and (plans or claim.stage is not Stage.HELD)
            for uuid in claim.uuids
        )

    def hold(
        self, uid: str, node: str, uuids: tuple[str, ...], *, now: float, seconds: float
    ) -> Claim:
        """Plan a set for a pod until `now` + `seconds`, in place of an earlier plan.

        Raises ReservationError if a GPU is another's, or the pod's claim is past planning.
        """
        self._check(uid, node, uuids)
        earlier = self._claims.get(uid)
        if earlier is not None and earlier.stage is not Stage.HELD:
            raise ReservationError(uid, node, f"already {earlier.stage.value} on {earlier.node}")
        return self._write(Claim(uid, node, uuids, Stage.HELD, now, now + seconds))

    def reserve(self, uid: str, node: str, uuids: tuple[str, ...], *, now: float) -> Claim:
        """Fix a set for the Binding; the same again changes nothing.

        Raises ReservationError if a GPU is another's, or the pod has another set for its Binding.
        """
        self._check(uid, node, uuids)
        earlier = self._claims.get(uid)
        if earlier is not None and earlier.stage is not Stage.HELD:
            if (earlier.node, frozenset(earlier.uuids)) == (node, frozenset(uuids)):
                return earlier
            raise ReservationError(uid, node, f"already {earlier.stage.value} on {earlier.node}")
        return self._write(Claim(uid, node, uuids, Stage.RESERVED, now))

    def confirm(self, uid: str, *, now: float) -> Claim | None:
        """Note that the Binding was taken; None if the watch was faster and ended the claim."""
        claim = self._claims.get(uid)
        if claim is None:
            return None
        if claim.stage is Stage.HELD:
            raise ReservationError(uid, claim.node, "confirmed without being reserved")
        return self._write(Claim(uid, claim.node, claim.uuids, Stage.BOUND, now))

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

    def _check(self, uid: str, node: str, uuids: tuple[str, ...]) -> None:
        if len(set(uuids)) != len(uuids):
            raise ReservationError(uid, node, "a GPU is named twice")
        taken = set(self.claimed(node, but=uid)).intersection(uuids)
        if taken:
            raise ReservationError(uid, node, f"{min(taken)} is claimed by another pod")

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
