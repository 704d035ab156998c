"""What a pod asks of the engine: GPU counts by container, and demands on the set."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from scheduler.errors import DemandError
from topology.demands import MinLink
from topology.model import MAX_GPUS
from topology.wire import GPU_MEMORY_KEY


class ContainerRequest(msgspec.Struct, frozen=True):
    """One container's GPUs. `count` is at least 1: containers without GPUs are not listed."""

    name: str
    count: int


class Demand(msgspec.Struct, frozen=True):
    """What decides which sets will do, without names: the key of every cached answer.

    `count` is the pod's total. `models` are shell patterns over the product name, any of which
    may match, without regard to case; empty takes all. `memory_mib` is the least memory of each
    GPU. `min_link` is the worst link that a pair of the set may have, None for any. `strict` pods
    may only run with exactly the set that was chosen, so they need a node of known topology.
    """

    count: int
    models: tuple[str, ...] = ()
    memory_mib: int = 0
    min_link: MinLink | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_GPUS:
            raise DemandError("GPUs", f"{self.count} is not between 1 and {MAX_GPUS}")
        if self.memory_mib < 0:
            raise DemandError(GPU_MEMORY_KEY, "less than nothing")

    def takes(self, model: str, memory_mib: int) -> bool:
        """Return whether a GPU of this model and memory may be in the set."""
        if memory_mib < self.memory_mib:
            return False
        return not self.models or any(
            fnmatchcase(model.lower(), pattern.lower()) for pattern in self.models
        )


class PodRequest(msgspec.Struct, frozen=True):
    """A pod as the engine sees it.

    `containers` stand in the order in which kubelet allocates: sidecars, then containers.
    `init` are its non-restartable init containers with GPUs, which kubelet serves first.
    `preempts` tells whether kube-scheduler may evict pods of lower `priority` for this one.
    """

    uid: str
    namespace: str
    name: str
    containers: tuple[ContainerRequest, ...]
    demand: Demand
    profile: str = ""
    init: tuple[ContainerRequest, ...] = ()
    priority: int = 0
    preempts: bool = True

    def __post_init__(self) -> None:
        if any(container.count < 1 for container in self.containers):
            raise DemandError("GPUs", "a container without GPUs is listed")
        if sum(container.count for container in self.containers) != self.demand.count:
            raise DemandError("GPUs", "the containers' counts do not sum up to the pod's")

    @property
    def shape(self) -> tuple[object, ...]:
        """What the verdict on a node depends on: equal shapes are accepted and refused alike."""
        return (
            self.demand,
            self.profile,
            self.priority,
            self.preempts,
            tuple(container.count for container in self.init),
            len(self.containers),
        )
