"""From a request to a claim: hold, confirm, choose again, split over containers."""

from __future__ import annotations

import pytest

from scheduler.engine.reservations import Stage
from scheduler.errors import BindError, DemandError
from tests.scheduler.nodes import bridged, mesh, pcie
from tests.scheduler.worlds import cluster, facts, planner, request


def test_planning_holds_the_set_until_it_expires() -> None:
    """Another pod cannot be given the held GPUs, and can after the hold."""
    state = cluster(a=facts(mesh(4)))
    plans = planner(state)
    assert plans.plan(request(4, uid="p"), ["a"], now=0).chosen is not None
    assert plans.plan(request(1, uid="q"), ["a"], now=1).chosen is None
    state.expire(10)
    assert plans.plan(request(1, uid="q"), ["a"], now=10).chosen is not None


def test_planning_again_replaces_the_hold() -> None:
    """A pod that is filtered twice holds one set."""
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    plans = planner(state)
    plans.plan(request(4), ["a"], now=0)
    plans.plan(request(4), ["b"], now=1)
    claim = state.claims.get("u1")
    assert claim is not None
    assert (claim.node, len(state.claims)) == ("b", 1)
    assert state.view(["a", "b"]).free.tolist() == [4, 0]


def test_deciding_leaves_no_trace() -> None:
    """A dry run changes neither claims nor the version."""
    state = cluster(a=facts(mesh(4)))
    before = state.version
    planner(state).decide(request(2), ["a"], now=0)
    assert (state.version, len(state.claims)) == (before, 0)


def test_bind_confirms_the_held_set() -> None:
    """The set that filter planned is the one that is reserved."""
    state = cluster(a=facts(mesh(4)))
    plans = planner(state)
    decision = plans.plan(request(2), ["a"], now=0)
    grant, how = plans.fix(request(2), "a", now=1)
    assert decision.chosen is not None
    assert (how, grant.uuids) == ("confirmed", frozenset(decision.chosen.choice.uuids))


def test_bind_chooses_again_on_another_node() -> None:
    """kube-scheduler may take any node of the shortlist; the hold moves there."""
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    plans = planner(state)
    plans.plan(request(2), ["a", "b"], now=0)
    grant, how = plans.fix(request(2), "b", now=1)
    assert (how, grant.node) == ("chosen", "b")
    assert state.view(["a", "b"]).free.tolist() == [4, 2]


def test_bind_chooses_again_when_a_held_gpu_was_lost() -> None:
    """A GPU that failed or was taken since filter is not bound."""
    state = cluster(a=facts(mesh(4)))
    plans = planner(state)
    decision = plans.plan(request(2), ["a"], now=0)
    assert decision.chosen is not None
    lost = decision.chosen.choice.members
    state.put("a", facts(mesh(4), unhealthy=int(lost)))
    grant, how = plans.fix(request(2), "a", now=1)
    assert how == "chosen"
    assert not grant.uuids & set(decision.chosen.choice.uuids)


def test_bind_again_gives_the_same_set() -> None:
    """One UID, one set, also when the node has changed since."""
    state = cluster(a=facts(mesh(4)))
    plans = planner(state)
    first, _ = plans.fix(request(2), "a", now=0)
    state.put("a", facts(mesh(4), occupied=0b1111))
    again, how = plans.fix(request(2), "a", now=1)
    assert (how, again) == ("repeated", first)


def test_bind_elsewhere_is_refused_while_a_bind_is_unsettled() -> None:
    """A pod whose Binding may be under way cannot be reserved on a second node."""
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    plans = planner(state)
    plans.fix(request(2), "a", now=0)
    with pytest.raises(BindError, match="node a"):
        plans.fix(request(2), "b", now=1)


def test_bind_on_a_full_node_says_why_and_keeps_nothing() -> None:
    """The error is the filter's constant text."""
    state = cluster(a=facts(mesh(4), occupied=0b1111))
    with pytest.raises(BindError, match="too few free GPUs"):
        planner(state).fix(request(1), "a", now=0)
    assert len(state.claims) == 0


def test_bind_without_topology_grants_no_set() -> None:
    """Kubelet chooses there; nothing is claimed."""
    state = cluster(a=facts(None))
    grant, how = planner(state).fix(request(2), "a", now=0)
    assert (how, grant.containers, len(state.claims)) == ("unknown", {}, 0)


def test_containers_share_the_pods_set() -> None:
    """The pod's set is chosen as one and split so that each container has its bridge."""
    state = cluster(a=facts(bridged(6), occupied=0b000001))
    grant, _ = planner(state).fix(request(2, 2), "a", now=0)
    pairs = {frozenset(uuids) for uuids in grant.containers.values()}
    assert pairs == {frozenset({"GPU-2", "GPU-3"}), frozenset({"GPU-4", "GPU-5"})}


def test_the_larger_container_picks_first() -> None:
    """Three GPUs are split two and one along the bridge, whatever the containers' order."""
    state = cluster(a=facts(bridged(4), occupied=0b0001))
    grant, _ = planner(state).fix(request(1, 2), "a", now=0)
    assert grant.containers["c0"] == ("GPU-1",)
    assert grant.containers["c1"] == ("GPU-2", "GPU-3")


def test_an_init_container_has_the_containers_set() -> None:
    """Kubelet reuses all of its devices, so both are told the same."""
    state = cluster(a=facts(pcie(4)))
    grant, _ = planner(state).fix(request(2, init=(2,)), "a", now=0)
    assert grant.containers["i0"] == grant.containers["c0"]
    assert len(grant.uuids) == 2


def test_an_unknown_profile_is_the_pods_mistake() -> None:
    """The text names the profiles that exist."""
    with pytest.raises(DemandError, match="inference, pack, spread, training"):
        planner(cluster(a=facts(pcie(4)))).decide(request(1, profile="fast"), ["a"], now=0)


def test_a_held_claim_is_reserved_in_place() -> None:
    """After bind the claim does not expire any more."""
    state = cluster(a=facts(mesh(4)))
    plans = planner(state)
    plans.plan(request(2), ["a"], now=0)
    plans.fix(request(2), "a", now=1)
    assert state.expire(1000) == ()
    claim = state.claims.get("u1")
    assert claim is not None
    assert claim.stage is Stage.RESERVED
