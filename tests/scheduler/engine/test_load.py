"""The load column and its score."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scheduler.engine.cluster import ClusterState
from scheduler.engine.plugins.load import Load
from tests.scheduler.nodes import mesh
from tests.scheduler.worlds import cluster, facts, request

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def state() -> ClusterState:
    """Return four nodes of unknown load."""
    return cluster(**{name: facts(mesh(4)) for name in NAMES})


def scores(state: ClusterState, *names: str) -> list[float]:
    """Score these nodes, or all."""
    return Load().score(state.view(names or NAMES), request(1)).round(9).tolist()


def test_the_score_is_what_is_idle(state: ClusterState) -> None:
    """100 - load in percent."""
    state.columns.put_loads({"a": 0.0, "b": 0.3, "c": 1.0, "d": 0.75})
    assert scores(state) == [1.0, 0.7, 0.0, 0.25]


def test_an_unknown_load_counts_as_the_other_candidates_mean(state: ClusterState) -> None:
    """Not as idle, and not as full."""
    state.columns.put_loads({"a": 0.1, "b": 0.3, "c": math.nan})
    assert scores(state) == [0.9, 0.7, 0.8, 0.8]
    assert scores(state, "b", "c") == [0.7, 0.7]


def test_without_any_load_all_are_equal(state: ClusterState) -> None:
    """Nobody has told."""
    assert scores(state) == [0.5] * 4


def test_one_nodes_load_can_change_alone(state: ClusterState) -> None:
    """A pod was bound there; nodes that are not known are left alone."""
    state.columns.put_loads({"a": 0.1, "b": 0.3, "c": 0.5, "d": 0.5})
    state.columns.put_load("a", 0.9)
    state.columns.put_load("x", 0.9)
    assert scores(state) == [0.1, 0.7, 0.5, 0.5]


def test_a_node_that_comes_anew_has_no_load(state: ClusterState) -> None:
    """Also in a row that another had; nodes that a list of loads leaves out lose theirs."""
    state.columns.put_loads(dict.fromkeys(NAMES, 0.9))
    state.drop("d")
    state.put("e", facts(mesh(4)))
    assert np.isnan(state.view(["e"]).load[0])
    state.columns.put_loads({"a": 0.9})
    assert np.isnan(state.view(["b"]).load[0])
