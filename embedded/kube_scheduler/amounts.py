"""What pods ask for and nodes have, as whole numbers: CPU in 1/1000 core, memory in bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.objects import Container, Pod
from runtime.quantity import parse_count, parse_milli

Amounts = dict[str, int]
PODS: Final = "pods"
CPU: Final = "cpu"
MEMORY: Final = "memory"

_LEAST: Final = {CPU: 100, MEMORY: 200 << 20}
"""What a pod that asks for nothing counts in scores, so that such pods spread too."""


def read_amounts(quantities: Mapping[str, str | int | float] | None) -> Amounts:
    """Read quantities, rounded up to whole units (CPU to 1/1000 core).

    >>> read_amounts({"cpu": "1500m", "memory": "1Ki", "nvidia.com/gpu": "4"})
    {'cpu': 1500, 'memory': 1024, 'nvidia.com/gpu': 4}
    """
    return {
        name: parse_milli(quantity) if name == CPU else parse_count(quantity)
        for name, quantity in (quantities or {}).items()
    }


def request_of(pod: Pod) -> Amounts:
    """Return what kube-scheduler counts for a pod.

    The greater of what runs for good (containers and sidecars) and of any one init step (with
    the sidecars started before it), and one of `pods`.
    """
    running: Amounts = {}
    highest: Amounts = {}
    for container in pod.spec.init_containers or ():
        wanted = _wanted_by(container)
        if container.restart_policy == "Always":
            add(running, wanted)
            _raise(highest, running)
        else:
            _raise(highest, _sum(running, wanted))
    for container in pod.spec.containers:
        add(running, _wanted_by(container))
    _raise(highest, running)
    return {**highest, PODS: 1}


def scored(request: Amounts) -> Amounts:
    """Return the CPU and memory that a request counts when nodes are rated.

    >>> scored({"cpu": 1500, "nvidia.com/gpu": 4})
    {'cpu': 1500, 'memory': 209715200}
    """
    return {name: request.get(name) or least for name, least in _LEAST.items()}


def _wanted_by(container: Container) -> Amounts:
    """Return the container's requests; what only has a limit is requested up to it."""
    resources = container.resources
    if resources is None:
        return {}
    return {**read_amounts(resources.limits), **read_amounts(resources.requests)}


def add(total: Amounts, more: Amounts, sign: int = 1) -> None:
    """Add amounts to a total, or take them away with `sign` -1."""
    for name, amount in more.items():
        total[name] = total.get(name, 0) + sign * amount


def _sum(first: Amounts, second: Amounts) -> Amounts:
    total = dict(first)
    add(total, second)
    return total


def _raise(highest: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        highest[name] = max(highest.get(name, 0), amount)
