"""The cluster as decisions see it: what is known of the nodes, less what is claimed.

Nodes and claims change here only, together, so that no GPU is ever free in one and taken in the
other. One thread owns it.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.engine.columns import Columns, NodeFacts
from scheduler.engine.reservations import Claim, Reservations
from scheduler.engine.sets import SetTables
from scheduler.engine.view import View
from scheduler.errors import ReservationError
from topology.gpuset import GpuSet
from topology.tables import Mix


class ClusterState:
    """Columns and claims. `version` grows with every change that a decision could notice."""

    def __init__(self, mix: Mix, columns: Columns | None = None) -> None:
        self.columns = columns if columns is not None else Columns()
        self.claims = Reservations()
        self.sets = SetTables(self.columns, mix)
        self.version = 0

    def put(self, name: str, facts: NodeFacts) -> bool:
        """Take what is known of a node now; returns whether anything is new."""
        claimed = facts.set_of(self.claims.claimed(name))
        changed = self.columns.put(name, facts, claimed)
        self.version += changed
        return changed

    def drop(self, name: str) -> bool:
        """Forget a node. Claims on it stay: only their pods' fate ends them."""
        changed = self.columns.drop(name)
        self.version += changed
        return changed

    def facts(self, name: str) -> NodeFacts | None:
        """Return what was last put for a node."""
        row = self.columns.rows.get(name)
        return None if row is None else self.columns.facts[row]

    def view(self, names: Sequence[str]) -> View:
        """Return the candidates' columns for one cycle. Names that are not known are left out."""
        return View(self.columns, self.sets, names)

    def free_for(self, uid: str, name: str, *, plans: bool = True) -> GpuSet:
        """Return the GPUs of a node that the pod may be given: free, or claimed by itself.

        Without `plans` also those that are only held for other pods.
        """
        facts = self.facts(name)
        if facts is None:
            return GpuSet(0)
        others = facts.set_of(self.claims.claimed(name, but=uid, plans=plans))
        return GpuSet(facts.healthy & ~(facts.occupied | others))

    def hold(
        self, uid: str, node: str, uuids: tuple[str, ...], *, now: float, seconds: float
    ) -> Claim:
        """Plan a set for a pod; see Reservations.hold. Also refuses GPUs that are not free."""
        self._check_free(uid, node, uuids)
        earlier = self.claims.get(uid)
        claim = self.claims.hold(uid, node, uuids, now=now, seconds=seconds)
        self._touch(claim, earlier)
        return claim

    def reserve(self, uid: str, node: str, uuids: tuple[str, ...], *, now: float) -> Claim:
        """Fix a set for the Binding; see Reservations.reserve. Refuses GPUs that are not free."""
        earlier = self.claims.get(uid)
        if earlier is None or earlier.expires is not None:
            self._check_free(uid, node, uuids)
        claim = self.claims.reserve(uid, node, uuids, now=now)
        if claim is not earlier:
            self._touch(claim, earlier)
        return claim

    def confirm(self, uid: str, *, now: float) -> Claim | None:
        """Note that the API server took the Binding."""
        return self.claims.confirm(uid, now=now)

    def release(self, uid: str) -> Claim | None:
        """End a pod's claim."""
        claim = self.claims.release(uid)
        self._touch(claim)
        return claim

    def expire(self, now: float) -> tuple[Claim, ...]:
        """End the plans whose time has come."""
        ended = self.claims.expire(now)
        self._touch(*ended)
        return ended

    def _check_free(self, uid: str, node: str, uuids: tuple[str, ...]) -> None:
        facts = self.facts(node)
        if facts is None:
            raise ReservationError(uid, node, "no such node")
        free = self.free_for(uid, node)
        for uuid in uuids:
            if not facts.set_of((uuid,)) & free:
                raise ReservationError(uid, node, f"{uuid} is not free")

    def _touch(self, *claims: Claim | None) -> None:
        """Write the rows of the nodes that these claims are or were on."""
        for node in {claim.node for claim in claims if claim is not None}:
            facts = self.facts(node)
            if facts is not None:
                self.put(node, facts)
