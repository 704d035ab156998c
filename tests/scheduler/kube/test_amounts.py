"""What pods request beside GPUs, counted as kube-scheduler counts it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.objects import Pod
from scheduler.engine.request import Amounts
from scheduler.kube.amounts import amounts_of, capacity_of


def wants(cpu: str | None = None, memory: str | None = None, **more: Any) -> dict[str, Any]:
    """Write a container with these requests."""
    given = {"cpu": cpu, "memory": memory}
    requests = {name: value for name, value in given.items() if value is not None}
    return {"name": "c", "resources": {"requests": requests}, **more}


SIDECAR = {"restartPolicy": "Always"}

ROWS: list[tuple[str, dict[str, Any], Amounts]] = [
    ("nothing", {"containers": [{"name": "c"}]}, Amounts(0, 0, 1)),
    (
        "containers add up",
        {"containers": [wants("500m", "1Gi"), wants("2", "1500Ki")]},
        Amounts(2500, 1026, 1),
    ),
    (
        "a limit alone is a request",
        {"containers": [{"name": "c", "resources": {"limits": {"cpu": "3"}}}]},
        Amounts(3000, 0, 1),
    ),
    (
        "the greediest init container counts where it is more",
        {"containers": [wants("1")], "initContainers": [wants("4", "1Mi"), wants("2", "9Mi")]},
        Amounts(4000, 9, 1),
    ),
    (
        "a sidecar runs beside what follows it",
        {"containers": [wants("1")], "initContainers": [wants("1", **SIDECAR), wants("3")]},
        Amounts(4000, 0, 1),
    ),
    (
        "overhead comes on top",
        {"containers": [wants("1")], "overhead": {"cpu": "250m", "memory": "64Mi"}},
        Amounts(1250, 64, 1),
    ),
    ("what does not read is nothing", {"containers": [wants("much")]}, Amounts(0, 0, 1)),
    (
        "more than any machine has is cut",
        {"containers": [wants("9223372036854775807", "9e99")]},
        Amounts((1 << 40) - 1, (1 << 40) - 1, 1),
    ),
]


@pytest.mark.parametrize(("spec", "expected"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_a_pods_requests(spec: dict[str, Any], expected: Amounts) -> None:
    """Containers and sidecars together, or the greatest step before them."""
    assert expected == amounts_of(msgspec.convert({"spec": spec}, Pod))


@pytest.mark.parametrize(
    ("allocatable", "expected"),
    [
        (None, Amounts()),
        ({"cpu": "7910m", "memory": "1535Ki", "pods": "110"}, Amounts(7910, 1, 110)),
        ({"cpu": "many", "memory": "much"}, Amounts()),
        (
            {"cpu": "1e18", "memory": "9e99", "pods": "1e18"},
            Amounts((1 << 40) - 1, (1 << 40) - 1, ((1 << 40) - 1) // 1000),
        ),
    ],
)
def test_what_a_node_has(allocatable: dict[str, str] | None, expected: Amounts) -> None:
    """Memory is cut down to whole MiB; what does not read is nothing."""
    assert expected == capacity_of(allocatable)
