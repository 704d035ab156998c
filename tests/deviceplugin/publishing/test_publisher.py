"""What is published, and when."""

from __future__ import annotations

import itertools

from deviceplugin.publishing.publisher import read_state
from tests.deviceplugin.nodes import (
    RESOURCE,
)
from tests.deviceplugin.publishing.node import World
from topology.wire import (
    STATE_KEY,
    TOPOLOGY_KEY,
    NodeState,
    encode_state,
)


def test_both_annotations_are_written_in_one_patch(world: World) -> None:
    """The first thing published is topology and state together; other keys stay."""
    world.pass_time(1)
    assert [patch.keys() for _, patch in world.node.patches] == [{TOPOLOGY_KEY, STATE_KEY}]
    assert world.node.annotations["somebody/else"] == "x"
    assert world.published().generation == 1


def test_nothing_is_said_before_it_is_known(world: World) -> None:
    """Without a state there is none on the Node: an empty one would mean that all is free."""
    world.state = None
    world.pass_time(1)
    assert STATE_KEY not in world.node.annotations
    world.hold("g0")
    world.pass_time(1)
    assert world.published().allocations == {"u": ("g0",)}


def test_changes_are_coalesced(world: World) -> None:
    """Many changes in a second lead to at most two writes, the last one with the newest value."""
    world.pass_time(1)
    del world.node.patches[:]
    for number in range(100):
        world.hold(f"g{number}")
        world.pass_time(0.01)
    world.pass_time(1)
    assert len(world.node.patches) <= 3
    times = [time for time, _ in world.node.patches]
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(times))
    assert world.published().allocations == {"u": ("g99",)}


def test_an_unchanged_state_is_not_written(world: World) -> None:
    """Only changes cost a write, and only what has changed is in it."""
    world.pass_time(30)
    assert len(world.node.patches) == 1
    world.topology = "T2"
    world.pass_time(1)
    assert world.node.patches[-1][1] == {TOPOLOGY_KEY: "T2"}


def test_the_generation_grows_with_each_change_and_over_restarts(world: World) -> None:
    """A new process goes on from the generation that it finds."""
    world.node.annotations[STATE_KEY] = encode_state(NodeState(41, (RESOURCE,), {}, {"u": ("g1",)}))
    world.pass_time(1)
    assert world.published().generation == 42
    world.hold("g2")
    world.pass_time(1)
    assert world.published().generation == 43


def test_a_state_that_is_still_true_is_left_alone(world: World) -> None:
    """A restart that finds what it has to say writes nothing about it."""
    world.node.annotations[STATE_KEY] = encode_state(NodeState(41, (RESOURCE,)))
    world.node.annotations[TOPOLOGY_KEY] = "T1"
    world.pass_time(1)
    assert world.node.patches == []


def test_a_broken_state_on_the_node_is_replaced(world: World) -> None:
    """What does not read counts as absent."""
    world.node.annotations[STATE_KEY] = '{"v":1,"gener'
    world.pass_time(1)
    assert world.published().generation == 1


def test_annotations_that_vanish_are_written_again(world: World) -> None:
    """A Node that was deleted and made again gets its annotations back within the minute."""
    world.pass_time(1)
    world.node.annotations = {}
    world.pass_time(61)
    assert {TOPOLOGY_KEY, STATE_KEY} <= world.node.annotations.keys()


def test_a_foreign_state_is_overruled(world: World) -> None:
    """Another writer's newer generation is passed, so that readers take ours."""
    world.pass_time(1)
    world.node.annotations[STATE_KEY] = encode_state(NodeState(100, (RESOURCE,), {"g1": "lie"}))
    world.pass_time(61)
    assert world.published() == NodeState(101, (RESOURCE,))


def test_stopping_clears_nothing(world: World) -> None:
    """After a stop the annotations stay as they were."""
    world.pass_time(1)
    before = dict(world.node.annotations)
    world.publisher.stop()
    world.publisher.run()
    assert before == world.node.annotations


def test_a_former_state_can_be_read(world: World) -> None:
    """The start reads what a former process found; garbage and absence are no state."""
    assert read_state(world.node, "n1", 1) is None
    world.node.annotations[STATE_KEY] = "garbage"
    assert read_state(world.node, "n1", 1) is None
    state = NodeState(3, (RESOURCE,), {"g1": "XID 79"})
    world.node.annotations[STATE_KEY] = encode_state(state)
    assert state == read_state(world.node, "n1", 1)
