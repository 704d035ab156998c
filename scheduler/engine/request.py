"""What a pod asks of the engine: GPU counts by container, and demands on the set."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from scheduler.errors import DemandError
from topology.demands import MinLink
from topology.model import MAX_GPUS
from topology.wire import GPU_MEMORY_KEY

WHOLE_GPU_MILLI: Final = 1000
"""A whole GPU in the unit of shares."""


class Amounts(msgspec.Struct, frozen=True):
    """CPU in thousandths of a core, memory in MiB, places for pods."""

    cpu_milli: int = 0
    memory_mib: int = 0
    pods: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu_milli + other.cpu_milli,
            self.memory_mib + other.memory_mib,
            self.pods + other.pods,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu_milli - other.cpu_milli,
            self.memory_mib - other.memory_mib,
            self.pods - other.pods,
        )


NOTHING: Final = Amounts()


class Wants(msgspec.Struct, frozen=True):
    """What a claim takes of each of its GPUs, in thousandths, and beside GPUs."""

    share_milli: int = WHOLE_GPU_MILLI
    amounts: Amounts = NOTHING


WHOLE_GPUS: Final = Wants()


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
    `share_milli` is what is asked of each GPU in thousandths, below 1000 of one GPU only. A count
    of 0 is a pod that wants no GPU.
    """

    count: int
    models: tuple[str, ...] = ()
    memory_mib: int = 0
    min_link: MinLink | None = None
    strict: bool = False
    share_milli: int = WHOLE_GPU_MILLI

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_GPUS:
            raise DemandError("GPUs", f"{self.count} is not between 0 and {MAX_GPUS}")
        if not 0 < self.share_milli <= WHOLE_GPU_MILLI:
            raise DemandError("GPU share", f"{self.share_milli} is not 1 to {WHOLE_GPU_MILLI}")
        if self.shares and self.count != 1:
            raise DemandError("GPU share", f"of {self.count} GPUs: only of one")
        if self.memory_mib < 0:
            raise DemandError(GPU_MEMORY_KEY, "less than nothing")

    @property
    def shares(self) -> bool:
        """Whether it asks for a part of one GPU."""
        return self.share_milli < WHOLE_GPU_MILLI

    @property
    def gpu_milli(self) -> int:
        """The GPU thousandths asked for in all."""
        return self.count * self.share_milli

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
    `asks` is what it requests beside GPUs.
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
    asks: Amounts = NOTHING

    def __post_init__(self) -> None:
        if any(container.count < 1 for container in self.containers):
            raise DemandError("GPUs", "a container without GPUs is listed")
        if sum(container.count for container in self.containers) != self.demand.count:
            raise DemandError("GPUs", "the containers' counts do not sum up to the pod's")

    @property
    def wants(self) -> Wants:
        """What a claim for the pod takes."""
        asks = msgspec.structs.replace(self.asks, pods=1)
        return Wants(self.demand.share_milli, asks)

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
