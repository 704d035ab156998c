"""The list of nodes is made bit by bit, of what was so at one moment."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import UNKNOWN, NodeFacts
from scheduler.explain.fleet import Fleet
from scheduler.explain.fleet_shapes import NodeLine
from scheduler.explain.listing import PART
from scheduler.explain.store import Limits, Store
from scheduler.kube.inventory import Inventory
from tests.bench import engine
from topology.gpuset import positions

NODES = 2 * PART + 7


@pytest.fixture(scope="module")
def state() -> ClusterState:
    """Make nodes of four kinds with some of their GPUs in use, and one that tells nothing."""
    made = engine.make_cluster(NODES, np.random.default_rng(1))
    made.put("silent", NodeFacts())
    return made


@pytest.fixture(scope="module")
def fleet(state: ClusterState) -> Fleet:
    """Look at them."""
    inventory = Inventory(state, "nvidia.com/gpu", lambda *_: None)
    return Fleet(state, inventory, Store(Limits()))


def lines_of(fleet: Fleet) -> list[NodeLine]:
    """Return the whole list."""
    return [line for part in fleet.nodes().parts() for line in part]


def test_every_node_is_listed_once_in_small_parts(state: ClusterState, fleet: Fleet) -> None:
    """By name; no part is longer than what may hold up a filter call."""
    parts = [*fleet.nodes().parts()]
    assert [len(part) for part in parts] == [PART, PART, 8]
    assert [line.node for part in parts for line in part] == sorted(state.columns.rows)


def test_a_line_is_what_the_columns_say(state: ClusterState, fleet: Fleet) -> None:
    """Of each node, one by one."""
    columns = state.columns
    for line in lines_of(fleet):
        row = columns.rows[line.node]
        facts = columns.facts[row]
        assert line.known is (facts.hardware is not None)
        assert line.free == len([*positions(columns.free_set(row))])
        assert line.healthy == len([*positions(facts.healthy)])
        assert line.free_share == pytest.approx(columns.share[row].sum() / 1000)
        assert line.held_back is facts.held_back
        models = () if facts.hardware is None else facts.hardware.models
        assert set(line.models) == set(models)
        assert (line.link_loss is None) is (line.wasted is None) is (not line.known)
        assert line.load is None


def test_what_changes_meanwhile_is_in_no_part(state: ClusterState, fleet: Fleet) -> None:
    """All lines are of one moment, however long they take to be made."""
    before = lines_of(fleet)
    taken = fleet.nodes().parts()
    made = [*next(taken)]
    last = before[-2].node
    facts = state.facts(last)
    assert facts is not None
    state.put(last, NodeFacts())
    state.put("a new one", NodeFacts())
    try:
        made += [line for part in taken for line in part]
        assert made == before
    finally:
        state.drop("a new one")
        state.put(last, facts)


def test_models_are_counted_as_one_by_one(state: ClusterState, fleet: Fleet) -> None:
    """Nodes that are alike are counted together."""
    columns = state.columns
    had, well, free = Counter[str](), Counter[str](), Counter[str]()
    for row in columns.rows.values():
        facts = columns.facts[row]
        if facts.hardware is None:
            assert columns.hardware[row] == UNKNOWN
            continue
        models = facts.hardware.models
        had.update(models)
        well.update(models[at] for at in positions(facts.healthy))
        free.update(models[at] for at in positions(columns.free_set(row)))
    told = fleet.survey().finish().models
    assert {one.model: (one.gpus, one.healthy, one.free) for one in told} == {
        model: (had[model], well[model], free[model]) for model in had
    }
