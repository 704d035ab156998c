"""What the API answers of nodes and of the cluster; `shapes` has the rules of the fields."""

from __future__ import annotations

import msgspec

from scheduler.explain.shapes import HolderAnswer, LinkAnswer, WorkloadAnswer
from scheduler.load.report import LoadReport


class NodeLine(msgspec.Struct, frozen=True, rename="camel"):
    """A node in a list. Counts are of GPUs.

    `free` are whole GPUs, `freeShare` counts free parts of shared ones too. `wasted` is how much
    of that the expected workload cannot use (FGD's measure), `linkLoss` what the pods that still
    fit lose in bandwidth against a node that is empty, 0 to 1; both null where nothing is known.
    """

    node: str
    models: tuple[str, ...]
    gpus: int
    healthy: int
    free: int
    free_share: float
    held_back: bool
    known: bool
    wasted: float | None
    link_loss: float | None
    load: float | None


class NodeGpu(msgspec.Struct, frozen=True, rename="camel"):
    """A GPU of a node. `problem` says why it is not given out, "" if it is well."""

    position: int
    uuid: str
    index: int
    model: str
    memory_mib: int
    numa_node: int | None
    switch: int | None
    healthy: bool
    problem: str
    free_share: float
    holders: tuple[HolderAnswer, ...]


class NicAnswer(msgspec.Struct, frozen=True):
    """A network card, and its level to each GPU by position."""

    name: str
    gpus: tuple[str, ...]


class ObtainableSet(msgspec.Struct, frozen=True, rename="camel"):
    """The best set of one size that the free GPUs of a node give now."""

    size: int
    gpus: tuple[int, ...]
    bus_bandwidth_gbs: float
    worst_link: str | None


class AmountAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What a node has beside GPUs: cores, MiB and places for pods. `pods` is what is left."""

    cpu: float
    free_cpu: float
    memory_mib: int
    free_memory_mib: int
    free_pods: int


class NodeAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A node in full: its GPUs and who holds them, links, sets to be had, and what is left."""

    node: str
    summary: NodeLine
    gpus: tuple[NodeGpu, ...]
    links: tuple[LinkAnswer, ...]
    nics: tuple[NicAnswer, ...]
    sets: tuple[ObtainableSet, ...]
    room: AmountAnswer
    load: LoadReport | None


class SizeAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """On how many nodes a set of this size is to be had now, by its worst link at most.

    `nodes` maps a level to nodes that have a set with no pair linked worse; NV means any NVLink.
    `busBandwidthGbs` is the best of them all, to be had on `node`.
    """

    size: int
    nodes: dict[str, int]
    bus_bandwidth_gbs: float
    node: str | None


class ModelAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The GPUs of one model."""

    model: str
    gpus: int
    healthy: int
    free: int


class ClusterAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The cluster as decisions see it.

    `unallocatedPct` is the part of all GPUs that nobody has, `wastedPct` the part of all that is
    free and of no use to the expected workload; `linkLoss` is the nodes' mean, by free GPUs.
    `largest` maps a level to the size of the largest set with no pair linked worse. `pending` are
    pods that were asked about and are not bound.
    """

    nodes: int
    known: int
    held_back: int
    gpus: int
    healthy: int
    free: int
    unallocated_pct: float
    wasted_pct: float
    link_loss: float
    largest: dict[str, int]
    sizes: tuple[SizeAnswer, ...]
    models: tuple[ModelAnswer, ...]
    reservations: int
    bound: int
    pending: int
    records: int
    record_bytes: int
    workload: WorkloadAnswer
