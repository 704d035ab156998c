"""Which pod is asking? kubelet does not say, but its own books tell. Pure.

kubelet shows a pod in PodResources from the moment it starts to admit it, and admits one pod at
a time: among the pods that request the resource exactly one has a container without devices.
Pods that were admitted before the resource existed look the same; their phase and the size of
their request tell them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from deviceplugin.admission.allocation import Wanted
from deviceplugin.outcomes import Drift
from deviceplugin.pods.holdings import Holdings, PodHoldings
from runtime.objects import Container, Pod
from topology.errors import WireError
from topology.wire import ASSIGNMENT_KEY, STRICT_KEY, Assignment, decode_assignment


class Asking(msgspec.Struct, frozen=True):
    """The pod in admission and the container that kubelet asks for."""

    pod: Pod
    container: str


class Identified(msgspec.Struct, frozen=True):
    """Who is asking: `asking`, or None and the reason.

    `candidates` are the pods that may be asking. `unseen` are those that may be too, but about
    which the watch knows nothing (or nothing recent): the API server may settle the matter.
    """

    asking: Asking | None
    drift: Drift | None = None
    candidates: frozenset[str] = frozenset()
    unseen: tuple[str, ...] = ()


def requested(container: Container, resource: str) -> int:
    """Return how many devices a container requests; 0 if none or if the number is nonsense."""
    resources = container.resources
    if resources is None:
        return 0
    # For extended resources limit and request are equal, and a limit alone is enough.
    value = (resources.limits or {}).get(resource, (resources.requests or {}).get(resource, 0))
    try:
        return int(value)
    except ValueError:
        return 0


def containers_in_order(pod: Pod) -> tuple[Container, ...]:
    """Return sidecars and containers in the order in which kubelet gives them devices.

    Init containers that end are left out: PodResources does not show them.
    """
    sidecars = (c for c in pod.spec.init_containers or () if c.restart_policy == "Always")
    return (*sidecars, *pod.spec.containers)


def waiting_container(pod: Pod, held: PodHoldings | None, resource: str) -> Container | None:
    """Return the first container that requests the resource and has no device yet."""
    for container in containers_in_order(pod):
        has = held.containers.get(container.name, ()) if held is not None else ()
        if requested(container, resource) and not has:
            return container
    return None


def identify(
    holdings: Holdings,
    pods: Mapping[str, Pod],
    resource: str,
    allocation_size: int,
    *,
    fresh: Collection[str] = (),
) -> Identified:
    """Find the one pod that can be asking for `allocation_size` devices.

    `pods` is what the watch of this node knows, by ``namespace/name``; `fresh` are those that the
    API server has just been asked for.
    """
    candidates: list[Asking] = []
    unseen: list[str] = []
    stale: list[str] = []
    for key, held in holdings.pods.items():
        pod = pods.get(key)
        if pod is None:
            # A pod that already holds the resource may still wait with a second container.
            unseen.append(key)
            continue
        container = waiting_container(pod, held, resource)
        if container is None:
            continue
        fits = requested(container, resource) == allocation_size
        dying = pod.metadata.deletion_timestamp and key not in fresh
        if fits and pod.status.phase == "Pending" and not dying:
            candidates.append(Asking(pod, container.name))
        elif key not in fresh:
            # Its namesake of before, perhaps, which may have had another size: a new pod of a
            # StatefulSet or a Job whose event is on its way.
            stale.append(key)
    # The one in admission is among those without any device, or has just got its first.
    unseen.sort(key=lambda key: bool(holdings.pods[key].uuids()))
    keys = frozenset(candidate.pod.key for candidate in candidates)
    if len(candidates) > 1:
        return Identified(None, Drift.AMBIGUOUS_POD, keys)
    if candidates:
        return Identified(candidates[0], None, keys, tuple(unseen))
    return Identified(None, Drift.NO_POD, unseen=(*unseen, *stale))


def identify_blindly(
    last: Holdings, pods: Mapping[str, Pod], resource: str, allocation_size: int
) -> Identified:
    """Name the pods that may be asking when kubelet's PodResources does not answer.

    `last` is what kubelet said before. Nobody is identified, even if there is one candidate: a
    pod of another scheduler may have come that the watch has not shown yet, and a guess would give
    it the GPUs of the one that is known.
    """
    candidates = frozenset(
        key
        for key, pod in pods.items()
        if pod.status.phase == "Pending"
        and (container := waiting_container(pod, last.pods.get(key), resource)) is not None
        and requested(container, resource) == allocation_size
    )
    return Identified(None, Drift.POD_RESOURCES, candidates)


def all_strict(candidates: Collection[str], pods: Mapping[str, Pod]) -> bool:
    """Return whether whoever is asking is strict: there are candidates, and no other ones."""
    return bool(candidates) and all(
        key in pods and pods[key].metadata.annotation(STRICT_KEY) == "true" for key in candidates
    )


def read_wanted(asking: Asking, names: Collection[str]) -> Wanted:
    """Return what the asking pod was bound with for its container.

    `names` are the uuids of this node. A broken annotation counts as absent, and its drift
    says so; a pod without one was bound by another scheduler, which is no drift.
    """
    strict = asking.pod.metadata.annotation(STRICT_KEY) == "true"
    try:
        assignment = assignment_of(asking.pod)
    except WireError:
        return Wanted(None, Drift.BROKEN_ANNOTATION, strict)
    if assignment is None:
        return Wanted(None, None, strict)
    uuids = assignment.containers.get(asking.container)
    if uuids is None:
        return Wanted(None, Drift.CONTAINER_MISSING, strict)
    known = frozenset(names)
    if not known.issuperset(uuids):
        return Wanted(uuids, Drift.BROKEN_ANNOTATION, strict)
    return Wanted(uuids, None, strict)


def assignment_of(pod: Pod) -> Assignment | None:
    """Return the set in a pod's annotation, None if it has none; raises WireError if broken."""
    text = pod.metadata.annotation(ASSIGNMENT_KEY)
    return None if text is None else decode_assignment(text)


def promised_uuids(
    pods: Mapping[str, Pod],
    holdings: Holdings,
    *,
    asking: Asking | None,
    candidates: Collection[str] = (),
) -> frozenset[str]:
    """Return the GPUs that were promised to containers which have none yet.

    The promise of the asking container itself is not counted, that of its pod's later containers
    is. Without `asking` the pods that may be in admission, `candidates`, do not count at all. A
    pod that is deleted before it ever ran will never be admitted. A broken annotation
    promises nothing.
    """
    promised: set[str] = set()
    for key, pod in pods.items():
        if pod.status.phase != "Pending" or pod.metadata.deletion_timestamp:
            continue
        if asking is None and key in candidates:
            continue
        try:
            assignment = assignment_of(pod)
        except WireError:
            continue
        if assignment is None:
            continue
        held = holdings.pods.get(key)
        for container, uuids in assignment.containers.items():
            is_asking = asking is not None and (key, container) == (
                asking.pod.key,
                asking.container,
            )
            if not is_asking and (held is None or not held.containers.get(container)):
                promised.update(uuids)
    return frozenset(promised)


def live_holders(
    holdings: Holdings, pods: Mapping[str, Pod], *, besides: Collection[str]
) -> dict[str, str]:
    """Map each GPU to the other live pod that kubelet shows with it.

    A pod that has ended according to the watch no longer counts: kubelet frees lazily.
    """
    return {
        uuid: key
        for uuid, key in holdings.holders().items()
        if key not in besides and not (key in pods and pods[key].finished)
    }
