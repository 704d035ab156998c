"""What pods request and nodes have beside GPUs, as kube-scheduler counts it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from runtime.errors import QuantityError
from runtime.objects import Container, Pod
from runtime.quantity import parse_milli, parse_quantity
from scheduler.engine.request import NOTHING, Amounts

Quantities = Mapping[str, str | int | float]

_MIB = 1 << 20

ONE_POD = Amounts(pods=1)

_MOST = (1 << 40) - 1
"""What one amount is cut to. The columns have 63 bits for the sum of a node's pods, and the API
server takes a pod that asks for 2^63 cores: a number that does not fit would end the daemon, at
each start anew. No machine has 2^40 thousandths of a core, or MiB."""


@lru_cache(maxsize=4096)
def _milli(quantity: str | float) -> int:
    """Read thousandths; what does not read counts as nothing, and the API server takes no such."""
    try:
        return _cut(parse_milli(quantity))
    except QuantityError:
        return 0


@lru_cache(maxsize=4096)
def _mib(quantity: str | float) -> int:
    try:
        return _cut(math.ceil(parse_quantity(quantity) / _MIB))
    except QuantityError:
        return 0


def _cut(amount: int) -> int:
    return min(max(amount, 0), _MOST)


def capacity_of(allocatable: Quantities | None) -> Amounts:
    """Return what a node has for pods. A fraction of a MiB is not counted."""
    quantities = allocatable or {}
    try:
        memory = int(parse_quantity(quantities.get("memory", 0)) // _MIB)
    except QuantityError:
        memory = 0
    return Amounts(
        cpu_milli=_milli(quantities.get("cpu", 0)),
        memory_mib=_cut(memory),
        pods=_milli(quantities.get("pods", 0)) // 1000,
    )


def amounts_of(pod: Pod) -> Amounts:
    """Return what a pod requests: that of its containers and sidecars, or of its greediest step.

    An init container runs alone with the sidecars before it, so the greater of both counts; the
    overhead of its runtime comes on top.
    """
    running = NOTHING
    highest = NOTHING
    for container in pod.spec.init_containers or ():
        wanted = _wanted_by(container)
        if container.restart_policy == "Always":
            running += wanted
            highest = _raise(highest, running)
        else:
            highest = _raise(highest, running + wanted)
    for container in pod.spec.containers:
        running += _wanted_by(container)
    overhead = pod.spec.overhead
    return _raise(highest, running) + (_read(overhead) if overhead else NOTHING) + ONE_POD


def _wanted_by(container: Container) -> Amounts:
    """Return the container's requests; what only has a limit is requested up to it."""
    resources = container.resources
    if resources is None:
        return NOTHING
    if not resources.limits:
        return _read(resources.requests or {})
    return _read({**resources.limits, **(resources.requests or {})})


def _read(quantities: Quantities) -> Amounts:
    return Amounts(_milli(quantities.get("cpu", 0)), _mib(quantities.get("memory", 0)))


def _raise(highest: Amounts, other: Amounts) -> Amounts:
    return Amounts(
        max(highest.cpu_milli, other.cpu_milli), max(highest.memory_mib, other.memory_mib)
    )
