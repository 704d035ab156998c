"""One decision: refusals, ties, the shortlist, preemption, plugins that break their contract."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler.engine.arrays import BoolArray, FloatArray
from scheduler.engine.cycle import schedule
from scheduler.engine.decision import Decision
from scheduler.engine.framework import Framework
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, Profile
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View
from scheduler.errors import PluginError, ProfileError
from tests.scheduler.nodes import bridged, mesh, pcie, switched
from tests.scheduler.worlds import cluster, facts, request
from topology.demands import parse_min_link
from topology.profiles import TRAINING


def decide(state: object, wanted: PodRequest, *names: str, profile: str = "training") -> Decision:
    """Run one cycle over these nodes."""
    view = state.view(names)
    return schedule(built_in(), view, wanted, BUILT_IN[profile], at=0.0)


REFUSALS = [
    ("a node too small", facts(mesh(4)), request(5), "gpu_count"),
    ("unhealthy GPUs", facts(mesh(4), unhealthy=0b11), request(3), "gpu_count"),
    ("GPUs in use", facts(mesh(4), occupied=0b11), request(3), "free_gpus"),
    ("a node held back", facts(mesh(4), held_back=True), request(1), "held_back"),
    ("held back without topology", facts(None, held_back=True), request(1), "held_back"),
    ("another model", facts(mesh(4)), request(1, models=("*H100*",)), "gpu_kind"),
    ("too little memory", facts(mesh(4)), request(1, memory_mib=81920), "gpu_kind"),
    ("unknown model", facts(None), request(1, models=("*",)), "gpu_kind"),
    (
        "no such link",
        facts(bridged(4)),
        request(3, min_link=parse_min_link("NV")),
        "obtainable_set",
    ),
    ("a link nobody knows", facts(None), request(2, min_link=parse_min_link("NV")), "exact_set"),
    ("strict without topology", facts(None), request(1, strict=True), "exact_set"),
]


@pytest.mark.parametrize(
    ("node", "wanted", "by"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refusal(node: object, wanted: PodRequest, by: str) -> None:
    """Each reason refuses the node, and says so with its constant text."""
    state = cluster(a=node)
    decision = decide(state, wanted, "a")
    assert decision.chosen is None
    assert decision.counts() == {by: 1}
    plugin = next(plugin for plugin in built_in().filters if plugin.name == by)
    assert decision.refused() == {"a": plugin.reason}


ACCEPTED = [
    ("all GPUs", facts(mesh(4)), request(4)),
    ("a model by pattern, without case", facts(mesh(4)), request(2, models=("*a100*",))),
    ("exactly the memory", facts(mesh(4)), request(2, memory_mib=40960)),
    ("a bridge", facts(bridged(4)), request(2, min_link=parse_min_link("NV4"))),
    ("unknown topology", facts(None), request(64)),
]


@pytest.mark.parametrize(
    ("node", "wanted"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_acceptance(node: object, wanted: PodRequest) -> None:
    """A node that meets every demand is chosen."""
    decision = decide(cluster(a=node), wanted, "a")
    assert decision.chosen is not None
    assert decision.refusals == ()


def test_ties_go_to_the_lowest_name() -> None:
    """Equal nodes are shortlisted in the order of their names, at most three."""
    state = cluster(**{name: facts(mesh(4)) for name in ("d", "b", "a", "c")})
    decision = decide(state, request(2), "d", "c", "b", "a")
    assert [option.node for option in decision.shortlist] == ["a", "b", "c"]


def test_the_shortlist_ends_at_the_tolerance() -> None:
    """A node that is worse than the best by more than the tolerance is not offered."""
    state = cluster(fast=facts(switched(4)), slow=facts(pcie(4)))
    decision = decide(state, request(4), "fast", "slow")
    assert [option.node for option in decision.shortlist] == ["fast"]
    assert len(decision.accepted) == 2


def test_a_node_of_unknown_topology_comes_last_but_comes() -> None:
    """It is never offered beside a known one, and is chosen when it is alone."""
    state = cluster(known=facts(pcie(4), occupied=0b0011), other=facts(None))
    decision = decide(state, request(2), "other", "known")
    assert [option.node for option in decision.shortlist] == ["known"]
    alone = decide(state, request(3), "other", "known")
    assert [option.node for option in alone.shortlist] == ["other"]
    assert alone.shortlist[0].choice.uuids == ()


def test_names_that_are_not_known_are_told_apart() -> None:
    """A candidate that the inventory lacks is neither accepted nor refused."""
    decision = decide(cluster(a=facts(mesh(4))), request(1), "x", "a", "y")
    assert decision.unknown == ("x", "y")
    assert decision.candidates == ["a"]


def test_preemption_could_help_only_where_lower_pods_hold_enough_gpus() -> None:
    """The node is named when its pods are of lower priority and its healthy GPUs suffice."""
    full = {"occupied": 0b1111}
    state = cluster(
        lower=facts(mesh(4), lowest_priority=1, **full),
        higher=facts(mesh(4), lowest_priority=9, **full),
        small=facts(mesh(2), occupied=0b11, lowest_priority=1),
    )
    names = ("lower", "higher", "small")
    decision = decide(state, request(4, priority=5), *names)
    assert [names[place] for place in decision.could_preempt.tolist()] == ["lower"]
    never = decide(state, request(4, priority=5, preempts=False), *names)
    assert never.could_preempt.tolist() == []


def test_init_containers_need_one_container_of_equal_size() -> None:
    """Other shapes are refused by every node with one text."""
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    assert decide(state, request(2, init=(2,)), "a").chosen is not None
    for shape in (request(2, init=(3,)), request(1, 1, init=(1,)), request(1, init=(1, 2))):
        refused = decide(state, shape, "a", "b").refused()
        assert set(refused) == {"a", "b"}
        assert len(set(refused.values())) == 1


def test_a_decision_tells_what_each_plugin_added() -> None:
    """Totals are the sums of the weighted scores, and the best come first."""
    state = cluster(a=facts(mesh(4)), b=facts(pcie(4)))
    decision = decide(state, request(2), "a", "b")
    top = decision.top(5)
    assert [line[0] for line in top] == ["a", "b"]
    for _, total, parts in top:
        assert total == pytest.approx(sum(parts.values()))
    assert sum(scored.weight for scored in decision.scores) == pytest.approx(1)


class Odd:
    """A score plugin that answers what it was given."""

    name = "odd"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Answer."""
        return self.answer


class OddFilter:
    """A filter that answers with the wrong type."""

    name = "odd_filter"
    reason = "odd"
    busy = False

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Answer with numbers."""
        return np.ones(len(view))


ODD = [
    (np.zeros(3), "shape (3,)"),
    (np.array(["a", "b"]), "<U1"),
    (np.array([0.0, np.nan]), "not finite"),
    (np.array([0.0, 1.5]), "between 0 and 1"),
]


@pytest.mark.parametrize(("answer", "problem"), ODD)
def test_a_score_plugin_that_answers_wrongly_is_named(answer: object, problem: str) -> None:
    """The decision names it and what is wrong with its answer, and goes on without it."""
    base = built_in()
    framework = Framework(pre_filters=(), filters=(), scores=(Odd(answer),), reserve=base.reserve)
    profile = Profile("odd", (("odd", 1.0),), 0.0, TRAINING)
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)))
    decision = schedule(framework, state.view(["a", "b"]), request(1), profile, at=0)
    (fault,) = decision.faults
    assert (fault.plugin, fault.method) == ("odd", "score")
    assert problem in fault.problem
    assert decision.chosen is not None


def test_a_filter_that_answers_wrongly_is_named() -> None:
    """Numbers are no verdicts."""
    base = built_in()
    framework = Framework(pre_filters=(), filters=(OddFilter(),), scores=(), reserve=base.reserve)
    with pytest.raises(PluginError, match="odd_filter"):
        schedule(
            framework,
            cluster(a=facts(mesh(4))).view(["a"]),
            request(1),
            Profile("none", (), 0.0, TRAINING),
            at=0,
        )


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ((("nothing", 1.0),), "no score plugin 'nothing'"),
        ((("packing", -1.0),), "weight of 'packing'"),
        ((("packing", 0.0),), "sum up to nothing"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(
    weights: tuple[tuple[str, float], ...], problem: str
) -> None:
    """It is checked when it is read, not when a pod names it."""
    with pytest.raises(ProfileError, match=problem):
        built_in().check(Profile("mine", weights, 0.0, TRAINING))
