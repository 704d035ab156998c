"""Vectorised scores equal a slow oracle in plain Python, for any free sets in any order."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.cycle import schedule
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from tests.scheduler.nodes import bridged, mesh, pcie, switched
from tests.scheduler.worlds import cluster, facts, request
from topology.gpuset import GpuSet, gpuset
from topology.model import NodeTopology, classify
from topology.quality import bus_bandwidth
from topology.tables import DEFAULT_MIX, tables_for

MACHINES: tuple[NodeTopology | None, ...] = (mesh(4), pcie(4), switched(6), bridged(4), None)

worlds = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 63)), min_size=1, max_size=8)


def free_positions(topology: NodeTopology, occupied: int) -> list[int]:
    """List the GPUs that are not occupied."""
    return [i for i in range(len(topology.gpus)) if not occupied >> i & 1]


def oracle(topology: NodeTopology | None, occupied: int, count: int) -> dict[str, float] | None:
    """Rate one node by trying every set; None where there is none."""
    if topology is None:
        return {"quality": 0.0, "packing": 0.0, "spreading": 0.0}
    free = free_positions(topology, occupied)
    if len(free) < count:
        return None
    cls = classify(topology)
    quality = max(bus_bandwidth(cls, gpuset(members)) for members in combinations(free, count))
    whole = len(topology.gpus)
    left = len(free) - count
    return {"quality": quality, "packing": 1 - left / whole, "spreading": left / whole}


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 4))
def test_scores_are_those_of_the_oracle(world: list[tuple[int, int]], count: int) -> None:
    """Link quality, packing and spreading of every node are what trying every set gives."""
    names = [f"n{number}" for number in range(len(world))]
    known = {
        name: (MACHINES[kind], 0 if MACHINES[kind] is None else occupied)
        for name, (kind, occupied) in zip(names, world, strict=True)
    }
    state = cluster(**{n: facts(t, occupied=o & 63) for n, (t, o) in known.items()})
    expected = {n: oracle(t, o, count) for n, (t, o) in known.items()}
    decision = schedule(
        built_in(), state.view(names), request(count), BUILT_IN["spread"], at=0, shortlist=3
    )
    accepted = [names[place] for place in decision.accepted.tolist()]
    assert accepted == [name for name in names if expected[name] is not None]
    training = schedule(
        built_in(), state.view(names), request(count), BUILT_IN["training"], at=0, shortlist=3
    )
    raw = {scored.plugin: scored.raw for scored in (*decision.scores, *training.scores)}
    for place, name in enumerate(accepted):
        wanted = expected[name]
        assert wanted is not None
        assert raw["link_quality"][place] == pytest.approx(wanted["quality"])
        assert raw["packing"][place] == pytest.approx(wanted["packing"])
        assert raw["spreading"][place] == pytest.approx(wanted["spreading"])


@settings(max_examples=60, deadline=None)
@given(
    worlds, st.integers(1, 4), st.randoms(use_true_random=False), st.sampled_from(list(BUILT_IN))
)
def test_the_choice_does_not_depend_on_the_order_of_the_nodes(
    world: list[tuple[int, int]], count: int, rng: object, profile: str
) -> None:
    """Nodes learnt and asked about in another order give the same shortlist and sets."""
    nodes = {
        f"n{number}": facts(MACHINES[kind], occupied=0 if MACHINES[kind] is None else occupied)
        for number, (kind, occupied) in enumerate(world)
    }
    names = list(nodes)
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    one = cluster(**nodes)
    other = cluster(**{name: nodes[name] for name in shuffled})
    answers = [
        schedule(built_in(), state.view(asked), request(count), BUILT_IN[profile], at=0)
        for state, asked in ((one, names), (other, shuffled))
    ]
    assert answers[0].shortlist == answers[1].shortlist
    assert answers[0].refused() == answers[1].refused()


@given(st.integers(0, 63), st.integers(0, 5), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_free_gpu_more_never_lowers_the_best_quality(
    occupied: int, freed: int, count: int
) -> None:
    """The best obtainable bandwidth grows with the free set."""
    topology = bridged(6)
    less, more = occupied | 1 << freed, occupied & ~(1 << freed)
    state = cluster(a=facts(topology, occupied=less), b=facts(topology, occupied=more))
    view = state.view(["a", "b"]).under(BUILT_IN["training"].policy)
    quality = view.quality(request(count).demand)
    assert not quality[1] < quality[0]
    if (6 - less.bit_count()) >= count:
        assert quality[1] >= quality[0]


def test_loss_weighs_a_fast_machine_more() -> None:
    """One GPU is taken from the PCIe machine rather than out of the NVSwitch."""
    state = cluster(fast=facts(switched(4)), slow=facts(pcie(4)))
    for profile in ("training", "inference", "pack"):
        decision = schedule(
            built_in(), state.view(["fast", "slow"]), request(1), BUILT_IN[profile], at=0
        )
        assert decision.chosen is not None
        assert decision.chosen.node == "slow"


def test_training_takes_the_faster_machine() -> None:
    """Two GPUs go where their bandwidth is greatest, in absolute terms."""
    state = cluster(bridge=facts(bridged(4)), switch=facts(switched(4)), pcie=facts(pcie(4)))
    decision = schedule(
        built_in(),
        state.view(["bridge", "pcie", "switch"]),
        request(2),
        BUILT_IN["training"],
        at=0,
    )
    assert decision.chosen is not None
    assert decision.chosen.node == "switch"
    tables = tables_for(classify(switched(4)), DEFAULT_MIX)
    best = float(tables.best(2)[-1])
    assert decision.chosen.choice.bus_bandwidth_gbs == pytest.approx(best)


def test_the_set_chosen_is_free_and_as_large_as_asked() -> None:
    """What a decision names can be held as it is."""
    state = cluster(a=facts(mesh(4), occupied=0b0001))
    decision = schedule(built_in(), state.view(["a"]), request(2), BUILT_IN["training"], at=0)
    assert decision.chosen is not None
    members = decision.chosen.choice.members
    assert members.bit_count() == 2
    assert not GpuSet(members & 1)
    assert decision.chosen.choice.uuids == tuple(f"GPU-{i}" for i in range(4) if members >> i & 1)
