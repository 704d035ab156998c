"""The state as it is composed, and how pods are judged by it."""

from __future__ import annotations

import pytest

from deviceplugin.publishing.state import compose_state, judge_realised, next_state
from runtime.objects import Pod
from tests.deviceplugin.nodes import (
    DGX1V,
    RESOURCE,
    by_key,
    holdings,
    machine,
    names,
    pod,
    stock_of,
)
from topology.wire import (
    NodeState,
)


def test_the_state_names_pods_by_uid() -> None:
    """Allocations are by UID, in the topology's order; a pod unknown to the watch by its name."""
    state = compose_state(
        stock_of(machine(8, DGX1V), {"g5": "XID 79"}),
        holdings(a={"c0": names(3, 0), "c1": names(1)}, static={"c0": names(4)}, none={"c0": ()}),
        by_key(pod("a", 3, phase="Running"), pod("none", 0)),
    )
    assert state == NodeState(
        generation=0,
        resources=(RESOURCE,),
        unhealthy={"g5": "XID 79"},
        allocations={"uid-a": names(0, 1, 3), "d/static": names(4)},
    )


def test_a_successor_by_name_is_not_taken_for_its_predecessor() -> None:
    """A pending pod under whose name other GPUs than its own are held keeps its promise open."""
    waiting = by_key(pod("a", 1, promised={"c0": names(2)}))
    state = compose_state(stock_of(machine(8)), holdings(a={"c0": names(0)}), waiting)
    assert state.allocations == {"d/a": names(0)}
    state = compose_state(stock_of(machine(8)), holdings(a={"c0": names(2)}), waiting)
    assert state.allocations == {"uid-a": names(2)}


def test_gpus_that_the_node_lacks_are_left_out() -> None:
    """A GPU that was unplugged while a pod holds it is not published: nobody could place it."""
    state = compose_state(stock_of(machine(2)), holdings(a={"c0": ("g1", "gone")}), {})
    assert state.allocations == {"d/a": names(1)}


def test_an_equal_state_has_no_successor() -> None:
    """The generation counts changes."""
    first = next_state(NodeState(0, (RESOURCE,)), None)
    assert first is not None
    assert first.generation == 1
    assert next_state(NodeState(0, (RESOURCE,)), first) is None


@pytest.mark.parametrize(
    ("one", "held", "verdict"),
    [
        pytest.param(
            pod("a", 2, promised={"c0": names(0, 1)}, phase="Running"),
            names(1, 0),
            {"uid-a": True},
            id="honoured",
        ),
        pytest.param(
            pod("a", 2, promised={"c0": names(0, 1)}, phase="Running"),
            names(1, 2),
            {"uid-a": False},
            id="mismatched",
        ),
        pytest.param(
            pod("a", 2, promised={"c0": names(0, 1)}, phase="Running"), (), {}, id="old-books"
        ),
        pytest.param(pod("a", 2, promised={"c0": names(0, 1)}), names(0, 1), {}, id="pending"),
        pytest.param(pod("a", 2, phase="Running"), names(0, 1), {}, id="nothing-promised"),
        pytest.param(
            pod("a", 2, annotation="{", phase="Running"), names(0, 1), {}, id="broken-annotation"
        ),
    ],
)
def test_running_pods_are_judged_by_their_promise(
    one: Pod, held: tuple[str, ...], verdict: dict[str, bool]
) -> None:
    """A running annotated pod is honoured if, and only if, it has exactly its set."""
    assert verdict == judge_realised(holdings(a={"c0": held}), by_key(one))
