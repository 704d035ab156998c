"""What the embedded kube-scheduler counts, refuses and chooses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from embedded.kube_scheduler.affinity import NO_AFFINITY
from embedded.kube_scheduler.amounts import request_of
from embedded.kube_scheduler.cache import ClusterCache
from embedded.kube_scheduler.filters import describe_refusal, refuse_node
from embedded.kube_scheduler.scores import choose_node
from runtime.objects import Node, Pod

GPU = "nvidia.com/gpu"


def node(name: str = "n1", **changes: Any) -> Node:
    """Make a ready node of 8 GPUs and 16 cores; `changes` are merged into its parts."""
    whole: dict[str, Any] = {
        "metadata": {"name": name, "labels": {"zone": "a"}, **changes.get("metadata", {})},
        "spec": changes.get("spec", {}),
        "status": {
            "allocatable": {
                "cpu": "16",
                "memory": "64Gi",
                "pods": "3",
                GPU: "8",
                **changes.get("allocatable", {}),
            },
            "conditions": changes.get("conditions", [{"type": "Ready", "status": "True"}]),
        },
    }
    return msgspec.convert(whole, Node)


def pod(uid: str = "1", gpus: int = 1, on: str | None = None, **spec: Any) -> Pod:
    """Make a pod of one container with a core, 1 GiB and some GPUs."""
    limits = {"cpu": "1", "memory": "1Gi"} | ({GPU: str(gpus)} if gpus else {})
    whole = {
        "metadata": {"name": f"p{uid}", "namespace": "default", "uid": uid},
        "spec": {
            "containers": [{"name": "main", "resources": {"limits": limits}}],
            "nodeName": on,
            **spec,
        },
        "status": {"phase": spec.pop("phase", "Pending")},
    }
    return msgspec.convert(whole, Pod)


def cache_of(*nodes: Node) -> ClusterCache:
    """Make a cache with these nodes."""
    cache = ClusterCache()
    for each in nodes:
        cache.set_node(each)
    return cache


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("of_node", "of_pod", "reason"),
    [
        ({}, {}, None),
        ({"spec": {"unschedulable": True}}, {}, "node(s) were unschedulable"),
        ({"conditions": []}, {}, "node(s) were not ready"),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, {}, "node(s) were not ready"),
        ({"spec": {"taints": [TAINT]}}, {}, "node(s) had untolerated taint {gpu: yes}"),
        ({"spec": {"taints": [{**TAINT, "effect": "PreferNoSchedule"}]}}, {}, None),
        ({"spec": {"taints": [TAINT]}}, {"tolerations": [{"operator": "Exists"}]}, None),
        ({"spec": {"taints": [TAINT]}}, {"tolerations": [{"key": "gpu", "value": "yes"}]}, None),
        (
            {"spec": {"taints": [TAINT]}},
            {"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]},
            "node(s) had untolerated taint {gpu: yes}",
        ),
        ({}, {"nodeSelector": {"zone": "a"}}, None),
        ({}, {"nodeSelector": {"zone": "b"}}, "node(s) didn't match Pod's node affinity/selector"),
        ({}, {"gpus": 9}, f"Insufficient {GPU}"),
        ({"allocatable": {GPU: "0"}}, {}, f"Insufficient {GPU}"),
        ({"allocatable": {GPU: "0"}}, {"gpus": 0}, None),
        ({"allocatable": {"cpu": "500m"}}, {}, "Insufficient cpu"),
        ({"allocatable": {"memory": "1Mi"}}, {}, "Insufficient memory"),
        ({"allocatable": {"pods": "0"}}, {}, "Too many pods"),
    ],
)
def test_a_node_is_refused_for_one_reason(
    of_node: dict[str, Any], of_pod: dict[str, Any], reason: str | None
) -> None:
    """Each filter says in kube-scheduler's words what is missing."""
    wanted = pod(**of_pod)
    [info] = cache_of(node(**of_node)).nodes()
    refusal = refuse_node(info, wanted, request_of(wanted))
    assert (refusal.text if refusal is not None else None) == reason
    assert refusal is None or refusal.resolvable == reason.startswith(("Insufficient", "Too many"))  # type: ignore[union-attr]  # there is a reason if there is a refusal


def test_requests_are_the_greater_of_init_steps_and_running_containers() -> None:
    """Sidecars run beside everything that comes after them; init steps run alone."""

    def container(name: str, gpus: int, restart: str | None = None) -> dict[str, Any]:
        limits = {GPU: str(gpus)}
        return {"name": name, "resources": {"limits": limits}, "restartPolicy": restart}

    wanted = pod(
        initContainers=[container("a", 2), container("side", 1, "Always"), container("b", 4)],
        containers=[container("x", 1), container("y", 1)],
    )
    assert request_of(wanted)[GPU] == 5  # b beside the sidecar, against 3 that run for good
    assert request_of(pod(containers=[container("x", 3), container("y", 3)]))[GPU] == 6


def test_assigned_and_assumed_pods_count_until_they_end() -> None:
    """A finished, deleted or forgotten pod gives its amounts back."""
    cache = cache_of(node())
    [info] = cache.nodes()
    cache.set_pod(pod("1", 2, on="n1"))
    cache.set_pod(pod("1", 2, on="n1"))
    cache.assume(pod("2", 4), "n1")
    assert info.left(GPU) == 2
    cache.forget("2")
    cache.forget("1")  # bound, not assumed
    assert info.left(GPU) == 6
    done = msgspec.structs.replace(
        pod("1", 2, on="n1"), status=msgspec.convert({"phase": "Succeeded"}, type(pod().status))
    )
    cache.set_pod(done)
    assert info.left(GPU) == 8


def test_a_binding_seen_by_watch_outlives_a_late_error() -> None:
    """A bind that failed for the caller but happened is not uncounted."""
    cache = cache_of(node())
    cache.assume(pod("1", 4), "n1")
    cache.set_pod(pod("1", 4, on="n1"))
    cache.forget("1")
    assert cache.nodes()[0].left(GPU) == 4


def test_unhealthy_devices_in_use_make_the_rest_negative() -> None:
    """Allocatable falls below what is used; nothing more fits."""
    cache = cache_of(node())
    cache.set_pod(pod("1", 8, on="n1"))
    cache.set_node(node(allocatable={GPU: "7"}))
    assert cache.nodes()[0].left(GPU) == -1


def test_the_least_allocated_node_wins_and_ties_go_by_name() -> None:
    """The choice among equals is the same every time."""
    cache = cache_of(node("n2"), node("n1"), node("n3"))
    request = request_of(pod("9"))
    assert choose_node(cache.nodes(), pod("9"), request, NO_AFFINITY) == "n1"
    cache.set_pod(pod("1", 1, on="n1"))
    assert choose_node(cache.nodes(), pod("9"), request, NO_AFFINITY) == "n2"


def test_a_refusal_counts_reasons_in_a_fixed_order() -> None:
    """The same refusals give the same text, so that it need not be written again."""
    reasons = {"n2": "Too many pods", "n1": "Insufficient cpu", "n3": "Insufficient cpu"}
    text = "0/3 nodes are available: 1 Too many pods, 2 Insufficient cpu."
    assert describe_refusal(3, reasons.values()) == text
    assert describe_refusal(0, ()) == "0/0 nodes are available: none exists."
