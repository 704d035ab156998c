"""Laws of claims: no interleaving of calls, times and node losses loses or doubles a GPU."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import Columns
from scheduler.engine.request import Demand
from scheduler.engine.reservations import Stage
from scheduler.errors import ReservationError
from tests.scheduler.nodes import mesh, pcie
from tests.scheduler.worlds import cluster, facts
from topology.gpuset import GpuSet
from topology.tables import DEFAULT_MIX

NODES = {"a": mesh(4, prefix="A"), "b": pcie(4, prefix="B")}
UIDS = ("p", "q", "r")

nodes = st.sampled_from(sorted(NODES))
uids = st.sampled_from(UIDS)
sets = st.sets(st.integers(0, 3), min_size=1)


class Claims(RuleBasedStateMachine):
    """Any interleaving, against a model that is a plain dict of pod -> (node, GPUs, stage)."""

    def __init__(self) -> None:
        super().__init__()
        self.state = cluster()
        self.now = 0.0
        self.there: dict[str, tuple[int, int]] = {}
        self.model: dict[str, tuple[str, frozenset[str], Stage, float]] = {}
        for name in NODES:
            self.node_comes(name, set(), set())

    @rule(name=nodes, occupied=st.sets(st.integers(0, 3)), unhealthy=st.sets(st.integers(0, 3)))
    def node_comes(self, name: str, occupied: set[int], unhealthy: set[int]) -> None:
        """Put a node with other GPUs in use or broken."""
        taken = sum(1 << i for i in occupied)
        broken = sum(1 << i for i in unhealthy)
        self.there[name] = (taken, broken)
        self.state.put(name, facts(NODES[name], occupied=taken, unhealthy=broken))

    @rule(name=nodes)
    def node_goes(self, name: str) -> None:
        """Drop a node."""
        self.there.pop(name, None)
        self.state.drop(name)

    @rule(uid=uids, name=nodes, members=sets, firm=st.booleans())
    def claim(self, uid: str, name: str, members: set[int], firm: bool) -> None:
        """Hold or reserve; refused exactly where the model says so, and then nothing changes."""
        uuids = tuple(NODES[name].gpus[i].uuid for i in sorted(members))
        before = self.state.claims.all()
        allowed = self._may_claim(uid, name, uuids, firm=firm)
        try:
            if firm:
                self.state.reserve(uid, name, uuids, now=self.now)
            else:
                self.state.hold(uid, name, uuids, now=self.now, seconds=5)
        except ReservationError:
            assert not allowed
            assert self.state.claims.all() == before
            return
        assert allowed
        known = self.model.get(uid)
        if known is None or known[2] is Stage.HELD:
            stage = Stage.RESERVED if firm else Stage.HELD
            self.model[uid] = (name, frozenset(uuids), stage, self.now + 5)

    def _may_claim(self, uid: str, name: str, uuids: tuple[str, ...], *, firm: bool) -> bool:
        known = self.model.get(uid)
        if known is not None and known[2] is not Stage.HELD:
            return firm and known[:2] == (name, frozenset(uuids))
        if name not in self.there:
            return False
        taken, broken = self.there[name]
        others = {
            uuid
            for other, (node, theirs, _, _) in self.model.items()
            if other != uid and node == name
            for uuid in theirs
        }
        free = {
            gpu.uuid
            for position, gpu in enumerate(NODES[name].gpus)
            if not (taken | broken) >> position & 1
        }
        return set(uuids) <= free - others

    @rule(uid=uids)
    def confirm(self, uid: str) -> None:
        """Confirm, which only a reserved claim can be."""
        known = self.model.get(uid)
        if known is not None and known[2] is Stage.HELD:
            with pytest.raises(ReservationError):
                self.state.confirm(uid, now=self.now)
            return
        assert (self.state.confirm(uid, now=self.now) is None) == (known is None)
        if known is not None:
            self.model[uid] = (*known[:2], Stage.BOUND, known[3])

    @rule(uid=uids)
    def release(self, uid: str) -> None:
        """Release."""
        assert (self.state.release(uid) is None) == (self.model.pop(uid, None) is None)

    @rule(seconds=st.floats(0, 6))
    def time_passes(self, seconds: float) -> None:
        """Expire what is due, and nothing else."""
        self.now += seconds
        ended = {claim.uid for claim in self.state.expire(self.now)}
        due = {
            uid
            for uid, (_, _, stage, expires) in self.model.items()
            if stage is Stage.HELD and expires <= self.now
        }
        assert ended == due
        for uid in due:
            del self.model[uid]

    @invariant()
    def claims_are_the_models(self) -> None:
        """Every claim is the model's."""
        claims = {
            claim.uid: (claim.node, frozenset(claim.uuids), claim.stage)
            for claim in self.state.claims.all()
        }
        assert claims == {uid: known[:3] for uid, known in self.model.items()}

    @invariant()
    def no_gpu_has_two_claims(self) -> None:
        """See that each GPU has at most one claimant."""
        named = [uuid for claim in self.state.claims.all() for uuid in claim.uuids]
        assert len(named) == len(set(named))

    @invariant()
    def free_is_the_rest(self) -> None:
        """Free is healthy, not occupied and not claimed."""
        for name, (taken, broken) in self.there.items():
            known = self.state.facts(name)
            assert known is not None
            claimed = known.set_of(tuple(self.state.claims.claimed(name)))
            free = self.state.columns.free_set(self.state.columns.rows[name])
            assert free == GpuSet(15 & ~(taken | broken | claimed))
            row = self.state.columns.rows[name]
            assert self.state.columns.free[row] == free.bit_count()


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_claim_names_gpus_and_survives_a_new_order_of_positions() -> None:
    """A node that lost its first GPU keeps the others' claims where they belong."""
    whole = mesh(4, prefix="A")
    state = cluster(a=facts(whole))
    state.reserve("p", "a", ("A-2",), now=0)
    rest = mesh(3, prefix="A")
    renamed = facts(rest)
    renamed = type(renamed)(
        hardware=renamed.hardware, uuids=("A-1", "A-2", "A-3"), healthy=renamed.healthy
    )
    state.put("a", renamed)
    assert state.columns.free_set(0) == GpuSet(0b101)


def test_a_claim_outlives_its_node() -> None:
    """A node that goes and comes back has the reserved GPU still taken."""
    state = cluster(a=facts(pcie(4)))
    state.reserve("p", "a", ("GPU-1",), now=0)
    state.drop("a")
    state.put("a", facts(pcie(4)))
    assert state.columns.free_set(0) == GpuSet(0b1101)


def test_the_version_grows_only_with_what_a_decision_could_notice() -> None:
    """Putting the same facts again changes nothing."""
    state = cluster(a=facts(pcie(4)))
    before = state.version
    assert not state.put("a", facts(pcie(4)))
    assert state.version == before
    state.hold("p", "a", ("GPU-1",), now=0, seconds=1)
    assert state.version > before


def test_rows_of_removed_nodes_are_used_again() -> None:
    """A cluster whose nodes come and go needs no more rows than it has nodes at once."""
    state = cluster()
    for number in range(500):
        state.put(f"n{number}", facts(pcie(2)))
        state.drop(f"n{number}")
    assert len(state.columns.names) == 1
    assert len(state.columns) == 0


def test_states_that_nobody_is_in_are_forgotten() -> None:
    """Interned free sets are bounded, and answers given after the clean-up are right."""
    state = ClusterState(DEFAULT_MIX, Columns(states_kept=8))
    state.put("a", facts(mesh(4)))
    state.put("b", facts(mesh(4)))
    for occupied in range(15):
        state.put("a", facts(mesh(4), occupied=occupied))
        view = state.view(["a", "b"])
        assert view.free.tolist() == [4 - occupied.bit_count(), 4]
        assert view.quality(Demand(4)).tolist() == pytest.approx(
            [math.nan if occupied else 208.0, 208.0], nan_ok=True
        )
    assert len(state.columns.state_free) <= 9
    assert state.columns.epoch > 0
