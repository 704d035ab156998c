"""What is published, when, and what no failure may do to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.config.model import Config
from deviceplugin.metrics import Metrics
from deviceplugin.pods.holdings import Holdings
from deviceplugin.publishing.books import Books
from deviceplugin.publishing.outbox import Outbox
from deviceplugin.publishing.publisher import Publisher, read_state
from deviceplugin.publishing.state import compose_state, judge_realised, next_state
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.resources.stock import take_stock
from runtime.errors import ApiError, KubeError, NotFoundError, UnreachableError
from runtime.objects import Pod
from tests.deviceplugin.nodes import (
    DGX1V,
    PAIRS,
    RESOURCE,
    FakeClock,
    by_key,
    holdings,
    machine,
    names,
    pod,
    reading_of,
    stock_of,
)
from topology.wire import (
    STATE_KEY,
    TOPOLOGY_KEY,
    NodeState,
    decode_state,
    decode_topology,
    encode_state,
)


class FakeNode:
    """A Node behind an API server that can go away."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {"somebody/else": "x"}
        self.error: KubeError | None = None
        self.patches: list[tuple[float, dict[str, str]]] = []
        self.clock = FakeClock()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float) -> bytes:
        """Return the node."""
        assert path == "/api/v1/nodes/n1"
        if self.error is not None:
            raise self.error
        return json.dumps({"metadata": {"name": "n1", "annotations": self.annotations}}).encode()

    def patch(self, path: str, body: object, *, timeout: float) -> bytes:
        """Merge the annotations."""
        if self.error is not None:
            raise self.error
        assert isinstance(body, dict)
        changed = body["metadata"]["annotations"]
        self.patches.append((self.clock.now, dict(changed)))
        self.annotations.update(changed)
        return b"{}"


class World:
    """A publisher whose books a test writes."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.metrics = Metrics()
        self.topology: str | None = "T1"
        self.state: NodeState | None = NodeState(0, (RESOURCE,))
        self.publisher = Publisher(
            client=self.node,
            node_name="n1",
            topology=lambda: self.topology,
            state=lambda: self.state,
            metrics=self.metrics,
            interval=0.5,
            verify_seconds=60,
            clock=self.node.clock,
        )

    def pass_time(self, seconds: float) -> None:
        """Let the publisher work for so long, at every moment at which it wants to."""
        end = self.node.clock.now + seconds
        while True:
            rest = self.publisher.step()
            if self.node.clock.now + rest > end:
                self.node.clock.now = end
                return
            self.node.clock.now += max(rest, 0.001)

    def published(self) -> NodeState:
        """Return the state on the Node."""
        return decode_state(self.node.annotations[STATE_KEY])

    def hold(self, *uuids: str) -> None:
        """Let pod ``u`` hold these."""
        self.state = NodeState(0, (RESOURCE,), {}, {"u": uuids})


@pytest.fixture
def world() -> World:
    """Return a world in which nothing was published yet."""
    return World()


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


def test_an_absent_server_loses_nothing(world: World) -> None:
    """While the server is away the newest value waits; it is written soon after the return."""
    world.pass_time(1)
    world.node.error = UnreachableError("away")
    world.hold("g1")
    world.pass_time(20)
    world.hold("g2")
    world.pass_time(20)
    world.node.error = None
    world.pass_time(5.1)
    assert world.published().allocations == {"u": ("g2",)}


def test_a_server_that_is_heard_again_is_told_at_once(world: World) -> None:
    """The watch hears of the return first: what waited is written without the rest of the pause."""
    world.pass_time(1)
    world.node.error = UnreachableError("away")
    world.hold("g1")
    world.pass_time(20.8)
    world.node.error = None
    world.publisher.server_answers()
    world.pass_time(0.001)
    assert world.published().allocations == {"u": ("g1",)}


def test_a_server_that_refuses_is_not_hurried(world: World) -> None:
    """An error of the server keeps its pauses, however often the watch is heard."""
    world.node.error = NotFoundError(404, "NotFound", "no such node")
    for _ in range(60):
        world.publisher.server_answers()
        world.pass_time(1)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert failed <= 17


def test_failures_are_retried_with_growing_pauses(world: World) -> None:
    """An absent server is asked about ten times a minute, not ten times a second."""
    world.node.error = UnreachableError("away")
    world.pass_time(60)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert 10 <= failed <= 17


@pytest.mark.parametrize("status", [403, 422])
def test_what_is_refused_is_hardly_tried_again(world: World, status: int) -> None:
    """A right that is missing, a value that is not taken: once a minute, until it is taken."""
    world.node.error = ApiError(status, "Refused", "")
    world.pass_time(3600)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert 60 <= failed <= 70
    world.node.error = None
    world.pass_time(61)
    assert STATE_KEY in world.node.annotations


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


@given(
    script=st.lists(
        st.tuples(st.sampled_from(["offer", "work", "fail"]), st.integers(0, 5)), max_size=60
    )
)
def test_the_outbox_keeps_its_pace_and_its_newest_value(
    script: list[tuple[str, int]],
) -> None:
    """Whatever fails: writes keep their distance, and what is written last is what was offered."""
    outbox = Outbox(interval=0.5)
    now, last_write, wanted, there = 0.0, float("-inf"), None, None
    for what, number in script:
        now += number / 8  # binary fractions: no rounding
        if what == "offer":
            wanted = str(number)
            outbox.offer("key", wanted)
            continue
        due = outbox.due(now)
        assert (due is None) == (wanted == there)
        if due is None:
            continue
        now += due
        if what == "fail":
            outbox.failed(now)
            continue
        values = outbox.pending()
        assert values == {"key": wanted}
        assert now - last_write >= 0.5
        outbox.wrote(values, now)
        last_write, there = now, values["key"]


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


def test_the_books_count_each_pod_once() -> None:
    """However often the state is composed, a pod is judged one time; no GPUs, nothing to say."""
    board, metrics = Board(), Metrics()
    said: Holdings | None = None
    pods = by_key(pod("a", 1, promised={"c0": names(0)}, phase="Running"))
    books = Books(
        stock=lambda: take_stock(board.read(), Config()),
        reading=lambda: None if said is None else reading_of(said),
        pods=lambda: pods,
        metrics=metrics,
    )
    assert (books.topology(), books.state()) == (None, None)
    board.post(Inventory(machine(8, PAIRS)))
    assert books.state() is None
    said = holdings(a={"c0": names(0)})
    for _ in range(3):
        assert books.state() is not None
    honoured = metrics.registry.get_sample_value(
        "gputopo_plugin_realised_total", {"outcome": "honoured"}
    )
    assert honoured == 1
    text = books.topology()
    assert text is not None
    assert decode_topology(text) == machine(8, PAIRS)
    assert books.topology() is text


class Ledger:
    """Books over a kubelet and a watch that say what they are told to."""

    def __init__(self) -> None:
        board = Board()
        board.post(Inventory(machine(8, PAIRS)))
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.said = holdings(a={"c0": names(0)}, b={"c0": names(1)})
        self.pods = by_key(
            pod("a", 1, promised={"c0": names(0)}, phase="Running"), pod("b", 1, phase="Running")
        )
        self._books = Books(
            stock=lambda: take_stock(board.read(), Config()),
            reading=lambda: reading_of(self.said),
            pods=lambda: self.pods,
            metrics=self.metrics,
            clock=self.clock,
        )

    def allocations(self) -> Mapping[str, tuple[str, ...]]:
        """Return what is published."""
        state = self._books.state()
        assert state is not None
        return state.allocations


BOTH = {"uid-a": names(0), "uid-b": names(1)}


def test_a_kubelet_that_has_just_started_frees_nobodys_gpus() -> None:
    """Pods that the watch shows alive keep what they hold while kubelet shows no pods yet."""
    books = Ledger()
    assert books.allocations() == BOTH
    books.said = Holdings()
    assert books.allocations() == BOTH
    books.said = holdings(a={"c0": names(0)})
    assert books.allocations() == BOTH
    honoured = books.metrics.registry.get_sample_value(
        "gputopo_plugin_realised_total", {"outcome": "honoured"}
    )
    assert honoured == 1


@pytest.mark.parametrize("why", ["ended", "gone", "replaced", "given-on", "late"])
def test_what_is_kept_for_a_pod_ends(why: str) -> None:
    """Not after its end, not under its successor, not if kubelet gave it on, and not for ever."""
    books = Ledger()
    assert books.allocations() == BOTH
    books.said = holdings(a={"c0": names(0)})
    other = {
        "ended": [pod("b", 1, phase="Succeeded")],
        "gone": [],
        "replaced": [pod("b", 1, uid="new")],
        "given-on": [pod("b", 1, phase="Running")],
        "late": [pod("b", 1, phase="Running")],
    }[why]
    books.pods = by_key(pod("a", 1, phase="Running"), *other)
    if why == "given-on":
        books.said = holdings(a={"c0": names(0, 1)})
    if why == "late":
        books.clock.now += 31
    assert books.allocations().keys() == {"uid-a"}
