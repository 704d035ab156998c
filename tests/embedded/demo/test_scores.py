"""Which of the nodes that will do is taken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from embedded.kube_scheduler.affinity import NO_AFFINITY, NodeAffinity, read_affinity
from embedded.kube_scheduler.amounts import request_of
from embedded.kube_scheduler.cache import ClusterCache, NodeInfo
from embedded.kube_scheduler.scores import choose_node
from runtime.objects import Node, Pod


def node(name: str, *soft_taints: str, **labels: str) -> Node:
    """Make a node of 16 cores with labels and PreferNoSchedule taints."""
    taints = [{"key": key, "effect": "PreferNoSchedule"} for key in soft_taints]
    whole = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi"}},
    }
    return msgspec.convert(whole, Node)


def pod(uid: str = "1", on: str | None = None, **limits: str) -> Pod:
    """Make a pod of one container that minds all taints but `mild`."""
    spec = {
        "nodeName": on,
        "containers": [{"name": "main", "resources": {"limits": limits}}],
        "tolerations": [{"key": "mild", "operator": "Exists"}],
    }
    return msgspec.convert({"metadata": {"name": f"p{uid}", "uid": uid}, "spec": spec}, Pod)


def infos(*nodes: Node, bound: tuple[Pod, ...] = ()) -> list[NodeInfo]:
    """Return these nodes as the filters left them, with pods on them."""
    cache = ClusterCache()
    for each in nodes:
        cache.set_node(each)
    for each in bound:
        cache.set_pod(each)
    return cache.nodes()


def prefers(*terms: tuple[int, str, str]) -> NodeAffinity:
    """Return an affinity of weights, label keys and label values."""
    preferred = [
        {
            "weight": weight,
            "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]},
        }
        for weight, key, value in terms
    ]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return read_affinity({"spec": {"affinity": affinity}})


def choose(nodes: list[NodeInfo], affinity: NodeAffinity = NO_AFFINITY) -> str:
    """Choose for a pod that asks for nothing."""
    return choose_node(nodes, pod(), request_of(pod()), affinity)


def test_equals_go_by_name() -> None:
    """The choice among equals is the same every time."""
    assert choose(infos(node("b"), node("a"), node("c"))) == "a"


def test_the_emptier_node_wins() -> None:
    """CPU and memory count, GPUs do not; a pod that asks for nothing counts a little too."""
    nodes = node("a"), node("b")
    assert choose(infos(*nodes, bound=(pod("2", "a", cpu="1"),))) == "b"
    assert choose(infos(*nodes, bound=(pod("2", "a"), pod("3", "a", **{"x.y/gpu": "4"})))) == "b"


def test_a_preferred_node_beats_an_emptier_one() -> None:
    """Affinity weighs twice what emptiness does; the weights of matching terms add up."""
    nodes = infos(node("a"), node("b", zone="x"), bound=(pod("2", "b", cpu="8"),))
    assert choose(nodes, prefers((1, "zone", "x"))) == "b"
    nodes = infos(node("a", zone="x"), node("b", disk="y", rack="z"))
    assert choose(nodes, prefers((3, "zone", "x"), (2, "disk", "y"), (2, "rack", "z"))) == "b"


def test_a_soft_taint_beats_a_preference() -> None:
    """Taints weigh three, affinity two; a taint that the pod tolerates counts nothing."""
    nodes = infos(node("a"), node("b", "harsh", zone="x"))
    assert choose(nodes, prefers((100, "zone", "x"))) == "a"
    nodes = infos(node("a"), node("b", "mild", zone="x"))
    assert choose(nodes, prefers((100, "zone", "x"))) == "b"
    assert choose(infos(node("a", "harsh", "sharp"), node("b", "harsh"))) == "b"


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["x", "y"], True),
        ("In", ["y"], False),
        ("NotIn", ["y"], True),
        ("NotIn", ["x"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["1"], False),
        ("Unheard", ["x"], False),
    ],
)
def test_a_requirement_is_met_as_selectors_are(
    operator: str, values: list[str], matches: bool
) -> None:
    """Of a node labelled zone=x."""
    assert _allows({"key": "zone", "operator": operator, "values": values}) is matches


@pytest.mark.parametrize(("operator", "value", "matches"), [("Gt", "3", True), ("Lt", "3", False)])
def test_numbers_are_compared_as_numbers(operator: str, value: str, matches: bool) -> None:
    """Of a node labelled count=10: as texts 10 would be less than 3."""
    assert _allows({"key": "count", "operator": operator, "values": [value]}) is matches


def test_a_term_without_expressions_matches_nothing_and_fields_name_nodes() -> None:
    """An empty term is no wildcard."""
    assert not _allows()
    named = {"key": "metadata.name", "operator": "In", "values": ["a"]}
    assert _required({"matchFields": [named]}).allows(node("a"))
    assert not _required({"matchFields": [named]}).allows(node("b"))


def _allows(*expressions: dict[str, Any]) -> bool:
    affinity = _required({"matchExpressions": list(expressions)})
    return affinity.allows(node("a", zone="x", count="10"))


def _required(term: dict[str, Any]) -> NodeAffinity:
    required = {"nodeSelectorTerms": [term]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return read_affinity({"spec": {"affinity": affinity}})
