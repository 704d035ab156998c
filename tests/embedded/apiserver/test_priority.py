"""A pod's priority is its class's, and nobody's to write."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.apiserver.api import Api
from embedded.apiserver.errors import ApiRefusal
from embedded.apiserver.resources import PODS, PRIORITY_CLASSES, Target

PODS_HERE = Target(PODS, "default")


def create(api: Api, pod: dict[str, Any]) -> dict[str, Any]:
    """Create a pod; return its spec."""
    return dict(api.create(PODS_HERE, pod).object["spec"])


def test_a_class_gives_a_pod_its_number_and_its_way(api: Api, a_pod: Any) -> None:
    """Without a class a pod has priority 0 and preempts; `Never` is the class's to say."""
    made = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
    api.create(Target(PRIORITY_CLASSES), made)
    spec = create(api, a_pod("a", {"priorityClassName": "high"}))
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    spec = create(api, a_pod("b"))
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")


def test_the_systems_classes_are_always_there(api: Api, a_pod: Any) -> None:
    """They need not be made."""
    spec = create(api, a_pod("a", {"priorityClassName": "system-node-critical"}))
    assert spec["priority"] == 2_000_001_000


@pytest.mark.parametrize(
    "spec",
    [
        {"priorityClassName": "absent"},
        {"priority": 5},
        {"priority": 5, "priorityClassName": "system-node-critical"},
        {"preemptionPolicy": "Never"},
    ],
)
def test_no_class_and_a_number_of_ones_own_are_forbidden(
    api: Api, a_pod: Any, spec: dict[str, Any]
) -> None:
    """Otherwise anybody could evict anybody."""
    with pytest.raises(ApiRefusal) as caught:
        create(api, a_pod("a", spec))
    assert caught.value.code == 403
