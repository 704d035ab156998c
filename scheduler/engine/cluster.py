"""The cluster as decisions see it: what is known of the nodes, less what is claimed.

Nodes and claims change here only, together, so that no GPU is ever free in one and taken in the
other. One thread owns it.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.engine.columns import Columns, NodeFacts, Room
from scheduler.engine.outlook import Outlook
from scheduler.engine.request import WHOLE_GPU_MILLI, WHOLE_GPUS, Wants
from scheduler.engine.reservations import Claim, Reservations
from scheduler.engine.sets import ClassTables, SetTables
from scheduler.engine.view import View
from scheduler.engine.workload import Expected
from scheduler.errors import ReservationError
from topology.gpuset import GpuSet, gpuset
from topology.tables import Mix


class ClusterState:
    """Columns and claims. `version` grows with every change that a decision could notice."""

    def __init__(
        self, mix: Mix, columns: Columns | None = None, workload: Expected | None = None
    ) -> None:
        self.columns = columns if columns is not None else Columns()
        self.claims = Reservations()
        self.sets = SetTables(self.columns, ClassTables(mix))
        self.outlook = Outlook(self.columns, workload)
        self.version = 0
        self._rooms: dict[str, Room] = {}

    def copy(self) -> ClusterState:
        """Return a twin that changes by itself, to try something out; it learns no workload."""
        twin = ClusterState(self.sets.tables.mix, self.columns.copy())
        twin.claims = self.claims.copy()
        twin.sets = SetTables(twin.columns, self.sets.tables.copy())
        twin.outlook = self.outlook.over(twin.columns)
        twin.version = self.version
        twin._rooms = dict(self._rooms)
        return twin

    def put(self, name: str, facts: NodeFacts) -> bool:
        """Take what is known of a node's GPUs now; returns whether anything is new."""
        fresh = name not in self.columns.rows
        shares = facts.free_shares(self.claims.claimed(name))
        changed = self.columns.put(name, facts, shares)
        self.version += changed
        if fresh:
            self._write_room(name)
        return changed

    def put_room(self, name: str, room: Room) -> bool:
        """Take a node's CPU, memory and places for pods; returns whether anything is new.

        The version stays: candidates have passed kube-scheduler's own filters over these.
        """
        self._rooms[name] = room
        return self._write_room(name)

    def drop(self, name: str) -> bool:
        """Forget a node. Claims on it stay: only their pods' fate ends them."""
        self._rooms.pop(name, None)
        changed = self.columns.drop(name)
        self.version += changed
        return changed

    def facts(self, name: str) -> NodeFacts | None:
        """Return what was last put for a node."""
        row = self.columns.rows.get(name)
        return None if row is None else self.columns.facts[row]

    def view(self, names: Sequence[str]) -> View:
        """Return the candidates' columns for one cycle. Names that are not known are left out."""
        return View(self.columns, self.sets, self.outlook, names)

    def shares_for(self, uid: str, name: str, *, plans: bool = True) -> tuple[int, ...]:
        """Return what of each GPU of a node the pod may be given, in thousandths.

        That is what is free, or claimed by itself; without `plans` also what is only held for
        other pods.
        """
        facts = self.facts(name)
        if facts is None:
            return ()
        return facts.free_shares(self.claims.claimed(name, but=uid, plans=plans))

    def free_for(self, uid: str, name: str, *, plans: bool = True) -> GpuSet:
        """Return the whole GPUs of a node that the pod may be given; see `shares_for`."""
        return gpuset(
            position
            for position, share in enumerate(self.shares_for(uid, name, plans=plans))
            if share == WHOLE_GPU_MILLI
        )

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
        """Plan a set for a pod; see Reservations.hold. Also refuses GPUs that are not free."""
        self._check_free(uid, node, uuids, wants)
        earlier = self.claims.get(uid)
        claim = self.claims.hold(uid, node, uuids, now=now, seconds=seconds, wants=wants)
        self._touch(claim, earlier)
        return claim

    def reserve(
        self,
        uid: str,
        node: str,
        uuids: tuple[str, ...],
        *,
        now: float,
        wants: Wants = WHOLE_GPUS,
    ) -> Claim:
        """Fix a set for the Binding; see Reservations.reserve. Refuses GPUs that are not free."""
        earlier = self.claims.get(uid)
        if earlier is None or earlier.expires is not None:
            self._check_free(uid, node, uuids, wants)
        claim = self.claims.reserve(uid, node, uuids, now=now, wants=wants)
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

    def _check_free(self, uid: str, node: str, uuids: tuple[str, ...], wants: Wants) -> None:
        facts = self.facts(node)
        if facts is None:
            raise ReservationError(uid, node, "no such node")
        free = dict(zip(facts.uuids, self.shares_for(uid, node), strict=True))
        for uuid in uuids:
            if free.get(uuid, 0) < wants.share_milli:
                raise ReservationError(uid, node, f"{uuid} is not free")

    def _touch(self, *claims: Claim | None) -> None:
        """Write the rows of the nodes that these claims are or were on."""
        for node in {claim.node for claim in claims if claim is not None}:
            facts = self.facts(node)
            if facts is not None:
                self.put(node, facts)
                self._write_room(node)

    def _write_room(self, name: str) -> bool:
        room = self._rooms.get(name)
        if room is None or name not in self.columns.rows:
            return False
        return self.columns.put_room(name, room.capacity, room.used + self.claims.amounts(name))
