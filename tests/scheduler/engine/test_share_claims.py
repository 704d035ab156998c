"""Laws of claims on parts of GPUs: no interleaving loses or doubles a thousandth, or a core."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.engine.columns import Room
from scheduler.engine.request import Amounts, Wants
from scheduler.engine.reservations import Stage
from scheduler.errors import ReservationError
from tests.scheduler.nodes import pcie
from tests.scheduler.worlds import cluster, facts

NODE = "n"
GPUS = ("GPU-0", "GPU-1", "GPU-2")
CAPACITY = Amounts(8000, 4096, 20)

uids = st.sampled_from(["p", "q", "r", "s"])
amounts = st.builds(Amounts, st.sampled_from([0, 500, 3000]), st.sampled_from([0, 64]), st.just(1))
parts = st.sampled_from([150, 500, 810, 1000])


class ShareClaims(RuleBasedStateMachine):
    """Against a model: pod -> (GPUs, thousandths, amounts, stage, end)."""

    def __init__(self) -> None:
        super().__init__()
        self.state = cluster()
        self.now = 0.0
        self.used = (0, 0, 0)
        self.there = False
        self.taken = Amounts()
        self.model: dict[str, tuple[tuple[str, ...], int, Amounts, Stage, float]] = {}
        self.node_comes(self.used)

    @rule(used=st.tuples(*[st.sampled_from([0, 190, 500, 1000])] * 3))
    def node_comes(self, used: tuple[int, int, int]) -> None:
        """Put the node with other parts in use by pods that are bound."""
        self.used, self.there = used, True
        self.state.put(NODE, msgspec.structs.replace(facts(pcie(3)), used=used))
        self.state.put_room(NODE, Room(CAPACITY, self.taken))

    @rule()
    def node_goes(self) -> None:
        """Drop the node."""
        self.there = False
        self.state.drop(NODE)

    @rule(taken=amounts)
    def pods_change(self, taken: Amounts) -> None:
        """Bound pods take other amounts; told only while the node is there."""
        if self.there:
            self.taken = taken
            self.state.put_room(NODE, Room(CAPACITY, taken))

    @rule(
        uid=uids,
        members=st.sets(st.integers(0, 2), min_size=1),
        milli=parts,
        asks=amounts,
        firm=st.booleans(),
    )
    def claim(self, uid: str, members: set[int], milli: int, asks: Amounts, firm: bool) -> None:
        """Hold or reserve; refused exactly where the model says so, and then nothing changes."""
        uuids = tuple(GPUS[at] for at in sorted(members))
        before = self.state.claims.all()
        allowed = self._may_claim(uid, uuids, milli, firm=firm)
        wants = Wants(milli, asks)
        try:
            if firm:
                self.state.reserve(uid, NODE, uuids, now=self.now, wants=wants)
            else:
                self.state.hold(uid, NODE, uuids, now=self.now, seconds=5, wants=wants)
        except ReservationError:
            assert not allowed
            assert self.state.claims.all() == before
            return
        assert allowed
        known = self.model.get(uid)
        if known is None or known[3] is Stage.HELD:
            stage = Stage.RESERVED if firm else Stage.HELD
            self.model[uid] = (uuids, milli, asks, stage, self.now + 5)

    def _claimed(self, uuid: str, but: str = "") -> int:
        return sum(
            milli
            for uid, (uuids, milli, _, _, _) in self.model.items()
            if uid != but and uuid in uuids
        )

    def _may_claim(self, uid: str, uuids: tuple[str, ...], milli: int, *, firm: bool) -> bool:
        known = self.model.get(uid)
        if known is not None and known[3] is not Stage.HELD:
            # The same again; how much it takes of them was settled the first time.
            others = all(self._claimed(uuid, uid) + milli <= 1000 for uuid in uuids)
            return firm and set(known[0]) == set(uuids) and others
        return self.there and all(
            self.used[GPUS.index(uuid)] + self._claimed(uuid, uid) + milli <= 1000 for uuid in uuids
        )

    @rule(uid=uids)
    def confirm(self, uid: str) -> None:
        """Confirm, which only a reserved claim can be."""
        known = self.model.get(uid)
        if known is not None and known[3] is Stage.HELD:
            with pytest.raises(ReservationError):
                self.state.confirm(uid, now=self.now)
            return
        self.state.confirm(uid, now=self.now)
        if known is not None:
            self.model[uid] = (*known[:3], Stage.BOUND, known[4])

    @rule(uid=uids)
    def release(self, uid: str) -> None:
        """Release."""
        assert (self.state.release(uid) is None) == (self.model.pop(uid, None) is None)

    @rule(seconds=st.floats(0, 6))
    def time_passes(self, seconds: float) -> None:
        """Expire what is due, and nothing else."""
        self.now += seconds
        due = {
            uid
            for uid, (_, _, _, stage, end) in self.model.items()
            if stage is Stage.HELD and end <= self.now
        }
        assert {claim.uid for claim in self.state.expire(self.now)} == due
        for uid in due:
            del self.model[uid]

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        """Claims on one GPU add up to one GPU at most."""
        assert all(self._claimed(uuid) <= 1000 for uuid in GPUS)
        assert {claim.uid: claim.stage for claim in self.state.claims.all()} == {
            uid: known[3] for uid, known in self.model.items()
        }

    @invariant()
    def columns_are_the_rest(self) -> None:
        """See that free is what nobody uses or claims: of each GPU, of all, of CPU and places."""
        if not self.there:
            return
        columns, row = self.state.columns, self.state.columns.rows[NODE]
        free = [
            max(1000 - used - self._claimed(uuid), 0)
            for uuid, used in zip(GPUS, self.used, strict=True)
        ]
        assert columns.share[row].tolist() == free
        assert (columns.idle[row], columns.largest[row]) == (sum(free), max(free))
        assert columns.free[row] == free.count(1000)
        claimed = [asks for _, _, asks, _, _ in self.model.values()]
        cpu = self.taken.cpu_milli + sum(asks.cpu_milli for asks in claimed)
        pods = self.taken.pods + len(claimed)
        assert columns.cpu[row] == CAPACITY.cpu_milli - cpu
        assert columns.pods[row] == CAPACITY.pods - pods


TestShareClaims = ShareClaims.TestCase
TestShareClaims.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
