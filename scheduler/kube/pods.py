"""Pods as Kubernetes writes them -> what the engine is asked."""

from __future__ import annotations

import math
from typing import Final

from runtime.errors import QuantityError
from runtime.objects import Container, Pod
from runtime.quantity import parse_quantity
from scheduler.engine.request import ContainerRequest, Demand, PodRequest
from scheduler.errors import DemandError
from scheduler.kube.amounts import amounts_of
from topology.demands import MinLink, parse_min_link
from topology.errors import SelectionError
from topology.wire import (
    GPU_MEMORY_KEY,
    GPU_MODEL_KEY,
    MIN_LINK_KEY,
    PROFILE_KEY,
    STRICT_KEY,
)

MIB = 1 << 20

PATTERNS: Final = 32
"""Patterns of models that a pod may name. An annotation has room for 50,000, which would hold
the verbs of all pods up for 18 s at each try."""

PATTERN_LENGTH: Final = 128
"""Characters of one; NVIDIA's product names stay below 40."""

ALWAYS: Final = "Always"
"""The restart policy that makes an init container a sidecar."""

AFTER_SIDECAR: Final = "its GPUs would be others than those that the sidecar before it keeps"
"""Nobody would have reserved them, and no read-back shows them."""

FOR_NOBODY: Final = "no container takes its GPUs over, so nobody would know which they are"


def gpus_of(container: Container, resource: str) -> int:
    """Return how many of the resource a container asks for; raises DemandError if not readable.

    For extended resources the API server makes requests and limits equal; limits alone may stand
    in an object that did not pass it.
    """
    resources = container.resources
    if resources is None:
        return 0
    value = (resources.limits or {}).get(resource, (resources.requests or {}).get(resource))
    if value is None:
        return 0
    key = f"container {container.name}: {resource}"
    try:
        amount = parse_quantity(value)
    except QuantityError as error:
        raise DemandError(key, str(error)) from None
    if amount.denominator != 1 or amount < 0:
        raise DemandError(key, f"{value!r} is not a whole number")
    return int(amount)


def wants_gpus(pod: Pod, resource: str) -> bool:
    """Return whether any container of a pod names the resource with more than 0."""
    return any(
        _mentions(container, resource)
        for container in (*pod.spec.containers, *(pod.spec.init_containers or ()))
    )


def count_gpus(pod: Pod, resource: str) -> int:
    """Return how many GPUs a running pod has, whatever its demands say; 0 if that does not read."""
    sidecars = (
        container
        for container in pod.spec.init_containers or ()
        if container.restart_policy == ALWAYS
    )
    try:
        return sum(gpus_of(container, resource) for container in (*sidecars, *pod.spec.containers))
    except DemandError:
        return 0


def _mentions(container: Container, resource: str) -> bool:
    try:
        return gpus_of(container, resource) > 0
    except DemandError:
        return True


def read_request(pod: Pod, resource: str, *, any_pod: bool = False) -> PodRequest | None:
    """Return what a pod asks for, None if it asks for no GPUs.

    With `any_pod` a pod that asks for none has a request too, of 0 GPUs.
    Raises DemandError naming the annotation or container that does not read, or the init
    container whose GPUs nobody could know.
    """
    init: list[ContainerRequest] = []
    containers: list[ContainerRequest] = []
    for container in pod.spec.init_containers or ():
        count = gpus_of(container, resource)
        if not count:
            continue
        # A sidecar keeps its GPUs beside the containers'; others hand theirs on to what follows.
        if container.restart_policy == ALWAYS:
            containers.append(ContainerRequest(container.name, count))
        elif containers:
            raise DemandError(f"init container {container.name}", AFTER_SIDECAR)
        else:
            init.append(ContainerRequest(container.name, count))
    for container in pod.spec.containers:
        count = gpus_of(container, resource)
        if count:
            containers.append(ContainerRequest(container.name, count))
    if init and not containers:
        raise DemandError(f"init container {init[0].name}", FOR_NOBODY)
    if not (any_pod or containers):
        return None
    return PodRequest(
        uid=pod.metadata.uid,
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        containers=tuple(containers),
        demand=_demand(pod, containers),
        profile=(pod.metadata.annotation(PROFILE_KEY) or "").strip(),
        init=tuple(init),
        priority=pod.spec.priority or 0,
        preempts=pod.spec.preemption_policy != "Never",
        asks=amounts_of(pod),
    )


def _demand(pod: Pod, containers: list[ContainerRequest]) -> Demand:
    if not containers:
        return Demand(0)
    return Demand(
        count=sum(container.count for container in containers),
        models=_models(pod.metadata.annotation(GPU_MODEL_KEY)),
        memory_mib=_memory(pod.metadata.annotation(GPU_MEMORY_KEY)),
        min_link=_min_link(pod.metadata.annotation(MIN_LINK_KEY)),
        strict=_strict(pod.metadata.annotation(STRICT_KEY)),
    )


def _models(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    patterns = tuple(sorted({word.strip() for word in text.split(",")} - {""}))
    if not patterns:
        raise DemandError(GPU_MODEL_KEY, "names no model")
    if len(patterns) > PATTERNS:
        raise DemandError(GPU_MODEL_KEY, f"more than {PATTERNS} patterns")
    if max(map(len, patterns)) > PATTERN_LENGTH:
        raise DemandError(GPU_MODEL_KEY, f"a pattern is longer than {PATTERN_LENGTH} characters")
    return patterns


def _memory(text: str | None) -> int:
    if text is None:
        return 0
    try:
        amount = parse_quantity(text)
    except QuantityError as error:
        raise DemandError(GPU_MEMORY_KEY, str(error)) from None
    if amount < 0:
        raise DemandError(GPU_MEMORY_KEY, f"{text!r} is less than nothing")
    return math.ceil(amount / MIB)


def _min_link(text: str | None) -> MinLink | None:
    if text is None:
        return None
    try:
        return parse_min_link(text)
    except SelectionError as error:
        raise DemandError(MIN_LINK_KEY, str(error).removeprefix("min-link: ")) from None


def _strict(text: str | None) -> bool:
    if text is None or text == "false":
        return False
    if text == "true":
        return True
    raise DemandError(STRICT_KEY, f"{text[:40]!r} is neither 'true' nor 'false'")
