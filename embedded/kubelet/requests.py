"""What pods ask for, in whole numbers. Pure."""

from __future__ import annotations

from embedded.kubelet.errors import AllocationError
from runtime.errors import QuantityError
from runtime.objects import Container, Pod
from runtime.quantity import parse_count, parse_milli

Amounts = dict[str, int]
"""Resource name to amount: cpu in thousandths, memory in bytes, others in pieces."""


def init_containers(pod: Pod) -> tuple[Container, ...]:
    """Return the init containers, sidecars among them."""
    return pod.spec.init_containers or ()


def all_containers(pod: Pod) -> tuple[Container, ...]:
    """Return the containers in the order of their admission: init containers first."""
    return (*init_containers(pod), *pod.spec.containers)


def sidecar(container: Container) -> bool:
    """Tell whether an init container stays, so that it keeps its devices."""
    return container.restart_policy == "Always"


def whole_limits(container: Container) -> Amounts:
    """Return the limits that a device plugin could serve: those with a domain in their name.

    Raises AllocationError naming an amount that is no quantity.
    """
    limits = (container.resources and container.resources.limits) or {}
    return {name: amount_of(name, value) for name, value in limits.items() if "/" in name}


def amount_of(name: str, value: str | float) -> int:
    """Read an amount of a resource. Raises AllocationError naming both."""
    try:
        return parse_milli(value) if name == "cpu" else parse_count(value)
    except QuantityError as error:
        raise AllocationError(f"{name}: {error}") from error


def pod_requests(pod: Pod) -> Amounts:
    """Return what a pod counts for: its containers and sidecars, or its greediest init step."""
    total: Amounts = {}
    for container in pod.spec.containers:
        _add(total, _requests(container))
    stays: Amounts = {}
    peak: Amounts = {}
    for container in init_containers(pod):
        wanted = _requests(container)
        if sidecar(container):
            _add(stays, wanted)
            wanted = {}
        for name, amount in stays.items():
            wanted[name] = wanted.get(name, 0) + amount
        for name, amount in wanted.items():
            peak[name] = max(peak.get(name, 0), amount)
    _add(total, stays)
    return {name: max(total.get(name, 0), peak.get(name, 0)) for name in total.keys() | peak.keys()}


def _requests(container: Container) -> Amounts:
    if container.resources is None:
        return {}
    # The API server sets requests from limits where they are absent.
    asked = {**(container.resources.limits or {}), **(container.resources.requests or {})}
    return {name: amount_of(name, value) for name, value in asked.items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
