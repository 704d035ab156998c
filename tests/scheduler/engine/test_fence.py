"""Plugins that fail or dawdle are left out of a decision, which goes on and says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scheduler.engine.arrays import BoolArray, FloatArray
from scheduler.engine.cycle import schedule
from scheduler.engine.decision import Decision
from scheduler.engine.fence import Fence
from scheduler.engine.framework import Framework
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, Profile
from scheduler.engine.request import PodRequest
from scheduler.engine.sets import SetChoice
from scheduler.engine.view import View
from tests.scheduler.nodes import mesh, pcie
from tests.scheduler.worlds import cluster, facts, request
from topology.gpuset import GpuSet
from topology.profiles import TRAINING

GUEST = Profile("guest", (("guest", 1.0), ("packing", 1.0)), 0.0, TRAINING)


class Guest:
    """A plugin with every method, each of which a test may replace."""

    name = "guest"
    reason = "guest says no"
    busy = False

    def __init__(self, **methods: Callable[..., object]) -> None:
        for name, method in methods.items():
            setattr(self, name, method)

    def pre_filter(self, request: PodRequest) -> str | None:
        """Let everything pass."""
        return None

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Let every node pass."""
        return np.ones(len(view), np.bool_)

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Prefer the last candidate."""
        return np.arange(len(view)) / 10

    def reserve(self, view: View, place: int, request: PodRequest) -> SetChoice | None:
        """Leave it to the built-in one."""
        return None


class Clock:
    """A stopwatch that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


def decide(guest: Guest, *, at: float = 0.0, fence: Fence | None = None) -> Decision:
    """Run one cycle over two equal nodes, with the guest."""
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    framework = built_in().extended([guest])
    view = state.view(["a", "b"])
    return schedule(framework, view, request(2), GUEST, at=at, fence=fence)


def fail(*_: object) -> object:
    """Raise what nobody expects."""
    raise KeyError("rack")


def test_a_guest_takes_part_everywhere() -> None:
    """Its score decides between equals."""
    decision = decide(Guest())
    assert decision.chosen is not None
    assert decision.chosen.node == "b"
    assert decision.faults == ()


@pytest.mark.parametrize("method", ["pre_filter", "filter", "score", "reserve"])
def test_what_a_guest_raises_costs_its_part_only(method: str) -> None:
    """The decision is made without it, names it, and tells what it raised."""
    decision = decide(Guest(**{method: fail}))
    assert decision.chosen is not None
    assert decision.chosen.choice.members.bit_count() == 2
    (fault,) = {(f.plugin, f.method, f.problem) for f in decision.faults}
    assert fault == ("guest", method, "KeyError: 'rack'")


def members(*positions: int) -> Callable[..., SetChoice]:
    """Make a reserve that answers with this set."""
    mask = GpuSet(sum(1 << at for at in positions))
    uuids = tuple(f"GPU-{at}" for at in positions)
    return lambda *_: SetChoice(mask, uuids, 1.0, 0.0, 0)


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("pre_filter", lambda *_: 7, "pre_filter returned 7, wanted a text or None"),
        ("filter", lambda *_: np.zeros(2), "filter returned shape (2,) of float64"),
        ("score", lambda *_: np.zeros(3), "score returned shape (3,)"),
        ("score", lambda *_: np.array([np.nan, 0.0]), "not finite"),
        ("score", lambda *_: np.array([2.0, 0.0]), "not between 0 and 1"),
        ("reserve", lambda *_: "GPU-0", "reserve returned a str"),
        ("reserve", members(0), "reserve chose 0x1, free are 0xf"),
        ("reserve", members(3, 4), "reserve chose 0x18, free are 0xf"),
    ],
)
def test_a_wrong_answer_is_as_good_as_none(
    method: str, answer: Callable[..., object], told: str
) -> None:
    """It is told what is wrong with it."""
    decision = decide(Guest(**{method: answer}))
    assert decision.chosen is not None
    assert told in decision.faults[0].problem


def test_a_guest_may_choose_the_set() -> None:
    """What it names is what the pod gets."""
    decision = decide(Guest(reserve=members(1, 3)))
    assert decision.chosen is not None
    assert decision.chosen.choice.members == 0b1010


def test_a_guest_may_refuse_nodes_and_pods() -> None:
    """With its own reasons."""
    everywhere = decide(Guest(filter=lambda view, _: np.zeros(len(view), np.bool_)))
    assert everywhere.refused() == {"a": "guest says no", "b": "guest says no"}
    pod = decide(Guest(pre_filter=lambda _: "no such team"))
    assert pod.refused() == {"a": "no such team", "b": "no such team"}


def test_a_slow_guest_rests() -> None:
    """After a call of more than 50 ms it is left out for 30 s, then called again."""
    clock = Clock()
    calls = []

    def dawdle(view: View, _: PodRequest) -> FloatArray:
        calls.append(clock.now)
        clock.now += 0.06
        return np.zeros(len(view))

    guest = Guest(score=dawdle)
    fence = Fence(frozenset({"guest"}), clock)
    assert decide(guest, at=0, fence=fence).faults == ()
    resting = decide(guest, at=29, fence=fence)
    assert {fault.method for fault in resting.faults} == {
        "pre_filter",
        "filter",
        "score",
        "reserve",
    }
    assert "a call took 60 ms" in resting.faults[0].problem
    assert decide(guest, at=30, fence=fence).faults == ()
    assert len(calls) == 2


def test_the_time_of_each_plugin_is_told() -> None:
    """By the stopwatch that the decision was given."""
    clock = Clock()

    def work(view: View, _: PodRequest) -> FloatArray:
        clock.now += 0.01
        return np.zeros(len(view))

    decision = decide(Guest(score=work), fence=Fence(frozenset({"guest"}), clock))
    assert decision.seconds["guest"] == pytest.approx(0.01)
    assert decision.seconds["packing"] == 0.0


def test_a_built_in_filter_that_fails_stops_the_decision() -> None:
    """What it keeps apart must not be guessed."""
    base = built_in()
    broken = Guest(filter=fail)
    framework = Framework(pre_filters=(), filters=(broken,), scores=(), reserve=base.reserve)
    view = cluster(a=facts(pcie(4))).view(["a"])
    with pytest.raises(KeyError):
        schedule(framework, view, request(1), Profile("none", (), 0.0, TRAINING), at=0)


def test_columns_are_read_only() -> None:
    """A plugin that writes into what all see is stopped, and what it wrote to is whole."""

    def spoil(view: View, _: PodRequest) -> FloatArray:
        view.free[:] = 0
        return np.zeros(len(view))

    decision = decide(Guest(score=spoil))
    assert "read-only" in decision.faults[0].problem
    assert decision.scores[-1].raw.tolist() == [0.5, 0.5]


def test_a_decision_tells_the_workload_it_was_judged_by() -> None:
    """Where the mix comes from, how many pods it was learned from, and the classes."""
    state = cluster(a=facts(mesh(4)))
    for number in range(4):
        state.outlook.observe(request(1 + number % 2, uid=f"u{number}"))
    view = state.view(["a"])
    forecast = schedule(built_in(), view, request(1), BUILT_IN["gputopo"], at=0).forecast
    assert (forecast.source, forecast.seen) == ("learned", 4)
    parts = {one.gpus: part for one, part in forecast.classes}
    assert parts == {1: pytest.approx(0.5, abs=1e-4), 2: pytest.approx(0.5, abs=1e-4)}
