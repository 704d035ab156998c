"""Which pods are evicted for one of higher priority."""

from __future__ import annotations

import msgspec
import pytest

from embedded.kube_scheduler.amounts import request_of
from embedded.kube_scheduler.cache import ClusterCache, NodeInfo
from embedded.kube_scheduler.filters import refuse_node
from embedded.kube_scheduler.preemption import Eviction, find_eviction
from runtime.objects import Node, Pod

GPU = "nvidia.com/gpu"


def pod(
    name: str, gpus: int, priority: int = 0, *, on: str = "", made: int = 0, policy: str = ""
) -> Pod:
    """Make a pod; `made` is the second at which it was created."""
    whole = {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": f"2026-11-28T00:00:{made:02}Z",
        },
        "spec": {
            "nodeName": on or None,
            "priority": priority,
            "preemptionPolicy": policy or None,
            "containers": [{"name": "main", "resources": {"limits": {GPU: str(gpus)}}}],
        },
    }
    return msgspec.convert(whole, Pod)


def infos(*bound: Pod, nodes: tuple[str, ...] = ("a", "b")) -> list[NodeInfo]:
    """Return nodes of eight GPUs with these pods on them."""
    cache = ClusterCache()
    for name in nodes:
        whole = {
            "metadata": {"name": name},
            "status": {
                "allocatable": {GPU: "8", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        cache.set_node(msgspec.convert(whole, Node))
    for each in bound:
        cache.set_pod(each)
    return cache.nodes()


def evict(nodes: list[NodeInfo], for_pod: Pod) -> tuple[str, set[str]] | None:
    """Return node and names of the victims."""
    request = request_of(for_pod)
    found: Eviction | None = find_eviction(
        nodes, for_pod, lambda info: refuse_node(info, for_pod, request) is None
    )
    return found and (found.node, {victim.metadata.name for victim in found.victims})


HIGH = pod("high", 4, priority=10)


def test_only_lower_priorities_are_evicted() -> None:
    """Equals stay, and so does everybody if the pod may not preempt."""
    full = infos(pod("x", 8, on="a"), pod("y", 8, priority=10, on="b"))
    assert evict(full, HIGH) == ("a", {"x"})
    assert evict(full, pod("z", 4)) is None
    assert evict(full, pod("never", 4, priority=10, policy="Never")) is None


def test_no_more_is_evicted_than_needed_and_the_least_important_go() -> None:
    """Who is more important, or was there first, stays where there is room for it."""
    full = infos(
        pod("low", 4, priority=1, on="a"),
        pod("mid", 4, priority=2, on="a"),
        pod("old", 4, priority=5, on="b", made=1),
        pod("new", 4, priority=5, on="b", made=2),
    )
    assert evict(full, HIGH) == ("a", {"low"})
    assert evict(full[1:], HIGH) == ("b", {"new"})


@pytest.mark.parametrize(
    ("on_a", "on_b"),
    [
        ([pod("a1", 8, 1)], [pod("b1", 8, 2)]),
        ([pod("a1", 4, 2), pod("a2", 4, 1)], [pod("b1", 4, 2), pod("b2", 4, 2)]),
        ([pod("a1", 8, -5)], [pod("b1", 4, -5), pod("b2", 4, -5)]),
        ([pod("a1", 8, 1, made=9)], [pod("b1", 8, 1, made=3)]),
        ([pod("a1", 8)], [pod("b1", 8)]),
    ],
)
def test_the_node_that_hurts_least_is_taken(on_a: list[Pod], on_b: list[Pod]) -> None:
    """By highest priority, then their sum, then how many, then age, then the node's name."""
    eight = pod("eight", 8, priority=10)
    found = evict(_bound(a=on_a, b=on_b), eight)
    assert found == ("a", {each.metadata.name for each in on_a})
    if on_b[0].metadata.creation_timestamp != on_a[0].metadata.creation_timestamp or (
        [each.spec.priority for each in on_a] != [each.spec.priority for each in on_b]
    ):
        assert evict(_bound(a=on_b, b=on_a), eight) == ("b", {each.metadata.name for each in on_a})


def test_a_node_that_passes_already_has_no_victims() -> None:
    """An extender may call it resolvable: kube-scheduler's own filters find nothing to evict."""
    assert evict(infos(pod("x", 4, on="a"), nodes=("a",)), HIGH) is None


def test_what_no_eviction_makes_room_for_evicts_nobody() -> None:
    """Sixteen GPUs are on no node."""
    full = infos(pod("x", 8, on="a"), pod("y", 8, on="b"))
    assert evict(full, pod("huge", 16, priority=10)) is None


def _bound(**on: list[Pod]) -> list[NodeInfo]:
    placed = [
        msgspec.structs.replace(each, spec=msgspec.structs.replace(each.spec, node_name=node))
        for node, pods in on.items()
        for each in pods
    ]
    return infos(*placed)
