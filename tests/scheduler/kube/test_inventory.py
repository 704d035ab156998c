"""Real beats intended: which GPUs are free, by what nodes and pods say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from runtime.objects import Node
from scheduler.engine.columns import hardware_of
from scheduler.engine.reservations import Stage
from scheduler.kube.inventory import LEARNED_SECONDS
from scheduler.kube.records import NodeRecord, judge
from tests.scheduler.kube.watched import Watched
from tests.scheduler.nodes import RESOURCE, mesh, node_object, pcie
from topology.wire import ASSIGNMENT_KEY, STATE_KEY, TOPOLOGY_KEY, NodeState


def state(allocations: Mapping[str, tuple[str, ...]], **unhealthy: str) -> NodeState:
    """Say what the plugin knows."""
    broken = {name.replace("_", "-"): reason for name, reason in unhealthy.items()}
    return NodeState(generation=1, allocations=dict(allocations), unhealthy=broken)


def gpus(*positions: int) -> tuple[str, ...]:
    """Name GPUs of the node."""
    return tuple(f"GPU-{position}" for position in positions)


BOUND = {"uid": "u", "node": "n"}

PROMISE: dict[str, Any] = {"assigned": {"main": gpus(0, 1)}}
DONE: dict[str, Any] = {**PROMISE, "phase": "Succeeded"}
FAILED: dict[str, Any] = {**PROMISE, "phase": "Failed"}

# What the node's plugin says, a pod if there is one, and what must be free. "!" is held back.
TABLE = [
    ("an empty node", state({}), None, "0,1,2,3"),
    ("no state yet", None, None, "0,1,2,3"),
    ("a broken GPU", state({}, GPU_2="xid 79"), None, "0,1,3"),
    ("a withheld GPU", NodeState(1, withheld={"GPU-1": "cut"}), None, "0,2,3"),
    ("a real allocation", state({"x": gpus(0, 1)}), None, "2,3"),
    ("a promise", state({}), PROMISE, "2,3"),
    ("a promise, no state yet", None, PROMISE, "2,3"),
    (
        "a promise that was kept",
        state({"u": gpus(0, 1)}),
        PROMISE,
        "2,3",
    ),
    ("a promise that drifted", state({"u": gpus(2, 3)}), PROMISE, "0,1"),
    ("half read back", state({"u": gpus(2)}), PROMISE, "3"),
    ("an unknown set", state({}), {}, "0,1,2,3!"),
    ("an unknown set, read back", state({"u": gpus(0, 1)}), {}, "2,3"),
    ("an unknown set, half read back", state({"u": gpus(0)}), {}, "1,2,3!"),
    ("a set of other GPUs", state({}), {"assigned": {"main": ("X", "Y")}}, "0,1,2,3!"),
    (
        "a demand that does not read, half read back",
        state({"u": gpus(0)}),
        {**PROMISE, "annotations": {"gputopo.dev/min-link": "FAST"}},
        "2,3",
    ),
    (
        "a set of fewer than it asks for",
        state({}),
        {"assigned": {"main": gpus(0)}},
        "1,2,3!",
    ),
    ("a set of more than it asks for", state({}), {"assigned": {"main": gpus(0, 1, 2)}}, "3!"),
    ("read back by name", state({"default/p": gpus(0, 1)}), {}, "2,3"),
    (
        "a predecessor of that name",
        state({"default/p": gpus(2, 3)}),
        PROMISE,
        "",
    ),
    (
        "a finished pod",
        state({}),
        DONE,
        "0,1,2,3",
    ),
    (
        "a finished pod whose GPUs kubelet still has",
        state({"u": gpus(0, 1)}),
        FAILED,
        "2,3",
    ),
    (
        "a promise of a lost GPU",
        state({}, GPU_0="lost"),
        PROMISE,
        "2,3",
    ),
]


@pytest.mark.parametrize(
    ("known", "pod", "free"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
@pytest.mark.parametrize("pod_first", [False, True])
def test_free(
    known: NodeState | None, pod: dict[str, Any] | None, free: str, pod_first: bool
) -> None:
    """Free is healthy, really unallocated and promised to nobody, in whatever order it is told."""
    watched = Watched()
    if pod is not None and pod_first:
        watched.pod("p", 2, **BOUND, **pod)
    watched.node("n", mesh(4), known)
    if pod is not None and not pod_first:
        watched.pod("p", 2, **BOUND, **pod)
    assert watched.free == free


DRIFTS = [
    ("a promise that was kept", state({"u": gpus(0, 1)}), PROMISE, 0),
    ("a promise that drifted", state({"u": gpus(2, 3)}), PROMISE, 1),
    ("one GPU of two drifted", state({"u": gpus(0, 2)}), PROMISE, 1),
    ("a promise not yet read back", state({}), PROMISE, 0),
    ("half read back", state({"u": gpus(2)}), PROMISE, 0),
    ("no state", None, PROMISE, 0),
    ("a set that nobody chose", state({"u": gpus(2, 3)}), {}, 0),
    ("a finished pod whose GPUs kubelet still has", state({"u": gpus(2, 3)}), DONE, 0),
    ("a predecessor of that name", state({"default/p": gpus(2, 3)}), PROMISE, 0),
]


@pytest.mark.parametrize(
    ("known", "pod", "count"), [row[1:] for row in DRIFTS], ids=[row[0] for row in DRIFTS]
)
def test_a_pod_with_other_gpus_than_chosen_is_counted(
    known: NodeState | None, pod: dict[str, Any], count: int
) -> None:
    """Once, for as long as it and its node are there, in whatever order they are told of."""
    watched = Watched()
    watched.pod("p", 2, **BOUND, **pod)
    for _ in range(2):
        watched.node("n", mesh(4), known)
        assert watched.inventory.drifted == count
        watched.inventory.drop_node("n")
        assert watched.inventory.drifted == 0
    watched.node("n", mesh(4), known)
    watched.gone("u")
    assert watched.inventory.drifted == 0


def test_a_promise_becomes_real_and_ends_when_the_plugin_says_so() -> None:
    """The GPUs stay taken from the Binding until the plugin publishes without them."""
    watched = Watched()
    watched.node("n", mesh(4), state({}))
    watched.cluster.reserve("u", "n", gpus(0, 1), now=0)
    assert watched.free == "2,3"
    watched.pod("p", 2, **BOUND, assigned={"main": gpus(0, 1)})
    assert (watched.free, watched.cluster.claims.get("u")) == ("2,3", None)
    watched.node("n", mesh(4), state({"u": gpus(0, 1)}))
    assert watched.free == "2,3"
    watched.pod("p", 2, **BOUND, assigned={"main": gpus(0, 1)}, phase="Succeeded")
    assert watched.free == "2,3"
    watched.gone("u")
    assert watched.free == "2,3"
    watched.node("n", mesh(4), state({}))
    assert watched.free == "0,1,2,3"


def test_a_pending_pods_claim_ends_with_the_pod() -> None:
    """A pod that is deleted before its Binding leaves nothing behind."""
    watched = Watched()
    watched.node("n", mesh(4))
    watched.cluster.reserve("u", "n", gpus(0), now=0)
    watched.pod("p", 1, uid="u")
    assert watched.free == "1,2,3"
    watched.gone("u")
    assert watched.free == "0,1,2,3"


def test_pods_without_gpus_do_not_hold_a_node_back() -> None:
    """Only who requests the resource can have GPUs of unknown position."""
    watched = Watched()
    watched.node("n", mesh(4), state({}))
    watched.pod("p", 0, uid="u", node="n")
    assert watched.free == "0,1,2,3"


def test_a_node_whose_gpus_are_all_shared_is_counted() -> None:
    """Nothing is offered whole: there are no sets to keep apart, and kube-scheduler counts."""
    record = NodeRecord()
    record.hardware, record.uuids = hardware_of(mesh(2)), gpus(0, 1)
    record.allocatable = 20
    record.state = NodeState(1, withheld=dict.fromkeys(gpus(0, 1), "shared"))
    counted = judge(record)
    assert (counted.hardware, counted.held_back) == (None, False)
    record.allocatable = 0
    assert judge(record).held_back
    record.state = NodeState(1, withheld=dict.fromkeys(gpus(0), "shared"))
    assert judge(record).hardware is not None


def test_a_node_without_plugin_is_held_back() -> None:
    """Allocatable 0, or none at all, means that kubelet could not serve the pod."""
    watched = Watched()
    watched.node("n", mesh(4), allocatable=0)
    assert watched.free == "0,1,2,3!"
    watched.node("n", mesh(4), allocatable=4)
    assert watched.free == "0,1,2,3"


def test_a_node_without_topology_is_only_held_back_without_plugin() -> None:
    """Mixed clusters keep working: its pods' sets need not be known."""
    watched = Watched()
    watched.node("n", None, allocatable=8)
    watched.pod("p", 2, **BOUND)
    assert watched.free == ""
    watched.node("n", None, allocatable=0)
    assert watched.free == "!"


@pytest.mark.parametrize("key", [TOPOLOGY_KEY, STATE_KEY])
def test_a_bad_annotation_is_reported_once_and_counts_as_absent(key: str) -> None:
    """Repeated events and lists do not repeat the report; a change does.

    A node whose state does not read is held back besides: it may tell of broken GPUs.
    """
    watched = Watched()
    for _ in range(3):
        watched.node("n", mesh(4), annotations={key: '{"v":1'})
    assert [(kind, name) for kind, name, _ in watched.reports] == [("node", "n")]
    assert watched.reports[0][2].startswith(key)
    assert watched.free == ("" if key == TOPOLOGY_KEY else "0,1,2,3!")
    watched.node("n", mesh(4), annotations={key: "null"})
    assert len(watched.reports) == 2


def test_a_pods_bad_annotation_holds_the_node_back() -> None:
    """Nobody knows which GPUs that pod was promised."""
    watched = Watched()
    watched.node("n", mesh(4))
    for _ in range(2):
        watched.pod("p", 2, **BOUND, annotations={ASSIGNMENT_KEY: "{}"})
    assert watched.free == "0,1,2,3!"
    assert [(kind, name) for kind, name, _ in watched.reports] == [("pod", "default/p")]


def test_a_new_list_drops_what_it_lacks() -> None:
    """Nodes and pods that vanished during a gap are gone; a reservation is not."""
    watched = Watched()
    watched.node("n", mesh(4))
    watched.node("old", mesh(4))
    watched.pod("p", 2, **BOUND, assigned={"main": gpus(0, 1)})
    watched.cluster.reserve("flying", "n", gpus(3), now=0)
    watched.inventory.nodes.listed((msgspec.convert(node_object("n", mesh(4)), Node),))
    assert not watched.inventory.knows("old")
    watched.inventory.pods.listed(())
    assert watched.free == "0,1,2"
    assert watched.inventory.bound("u") is None


def test_it_is_complete_after_both_lists() -> None:
    """Nodes alone would show GPUs free that pods have."""
    watched = Watched()
    assert not watched.inventory.synced
    watched.inventory.nodes.listed(())
    assert not watched.inventory.synced
    watched.inventory.pods.listed(())
    assert watched.inventory.synced


def test_a_node_that_comes_back_finds_its_pods() -> None:
    """A node object that is deleted and made again has its promises still."""
    watched = Watched()
    watched.node("n", mesh(4))
    watched.pod("p", 2, **BOUND, assigned={"main": gpus(0, 1)})
    watched.inventory.nodes.deleted(msgspec.convert(node_object("n"), Node))
    assert not watched.inventory.knows("n")
    watched.node("n", mesh(4))
    assert watched.free == "2,3"


def test_a_lost_gpu_moves_the_others_not() -> None:
    """When the plugin publishes fewer GPUs, promises stay with their uuids."""
    watched = Watched()
    watched.node("n", pcie(4))
    watched.pod("p", 1, **BOUND, assigned={"main": gpus(2)})
    watched.node("n", pcie(3))
    assert watched.free == "0,1"


def test_a_learned_node_is_forgotten_unless_the_watch_shows_it() -> None:
    """A node known from a request body only lives for half a minute."""
    watched = Watched()
    seen = msgspec.convert(node_object("n", mesh(4)), Node)
    other = msgspec.convert(node_object("m", mesh(4)), Node)
    watched.inventory.learn(seen, now=0)
    watched.inventory.learn(other, now=0)
    watched.node("n", mesh(4))
    watched.inventory.forget_learned(now=LEARNED_SECONDS + 1)
    assert watched.inventory.knows("n")
    assert not watched.inventory.knows("m")


def test_the_lowest_priority_is_that_of_pods_with_gpus() -> None:
    """It tells whether preemption could free GPUs."""
    watched = Watched()
    watched.node("n", mesh(4))
    watched.pod("p", 1, **BOUND, priority=5)
    watched.pod("q", 1, uid="v", node="n", priority=3)
    watched.pod("r", 0, uid="w", node="n", priority=1)
    assert watched.cluster.view(["n"]).lowest_priority.tolist() == [3]


def test_a_hold_survives_events_of_the_node() -> None:
    """What is planned stays taken when the node's state changes."""
    watched = Watched()
    watched.node("n", mesh(4), state({}))
    watched.cluster.hold("u", "n", gpus(3), now=0, seconds=10)
    watched.node("n", mesh(4), state({"x": gpus(0)}))
    assert watched.free == "1,2"
    claim = watched.cluster.claims.get("u")
    assert claim is not None
    assert claim.stage is Stage.HELD


def test_swapped_pods_hold_the_node_back_until_both_are_read_back() -> None:
    """One really has the other's set: what that other will get is not known yet."""
    watched = Watched()
    watched.node("n", mesh(4), state({}))
    watched.pod("p", 1, uid="u", node="n", assigned={"main": gpus(0)})
    watched.pod("q", 1, uid="v", node="n", assigned={"main": gpus(1)})
    assert watched.free == "2,3"
    watched.node("n", mesh(4), state({"u": gpus(1)}))
    assert watched.free == "0,2,3!"
    watched.node("n", mesh(4), state({"u": gpus(1), "v": gpus(0)}))
    assert watched.free == "2,3"


def test_an_unreadable_count_is_reported_once() -> None:
    """Node events come every few seconds; the same text is not worth a line each."""
    watched = Watched()
    for generation in range(3):
        node = node_object("n", mesh(4), NodeState(generation))
        node["status"]["allocatable"][RESOURCE] = "many"
        watched.inventory.nodes.changed(msgspec.convert(node, Node))
    assert [kind for kind, _, _ in watched.reports] == ["node"]
    assert watched.free == "0,1,2,3!"
