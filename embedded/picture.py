"""How a demo stands at one moment, as values for a view. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from runtime.objects import Pod
from topology.gpuset import GpuSet, gpuset, size
from topology.model import NodeTopology, TopologyClass, classify
from topology.policies import choose
from topology.tables import tables_for

# The request sizes that people think in; the largest that fits is shown.
_SIZES = (16, 8, 4, 2)


class GpuCell(msgspec.Struct, frozen=True):
    """A GPU of a node: NVML index, uuid, the pod that holds it ("" if none), whether it is well."""

    index: int
    uuid: str
    holder: str = ""
    healthy: bool = True


class NodeRow(msgspec.Struct, frozen=True):
    """A node: its GPUs in NVML's order, and the best set to be had from its free ones.

    `best_size` is the largest of 16, 8, 4 and 2 GPUs that are free, 0 if none; `best_gbs` the
    bus bandwidth in GB/s of the best set of that size.
    """

    name: str
    machine: str
    cells: tuple[GpuCell, ...]
    best_size: int = 0
    best_gbs: float = 0.0

    @property
    def free(self) -> int:
        """How many GPUs are well and free."""
        return sum(cell.healthy and not cell.holder for cell in self.cells)


class Counts(msgspec.Struct, frozen=True):
    """The pods by what became of them. `bound` counts all that ever got a node."""

    created: int = 0
    bound: int = 0
    running: int = 0
    pending: int = 0
    completed: int = 0
    failed: int = 0


class Picture(msgspec.Struct, frozen=True):
    """Everything a view shows. `message` says what is going on, `notes` what happened lately."""

    seconds: float
    message: str
    rows: tuple[NodeRow, ...] = ()
    counts: Counts = Counts()
    notes: tuple[str, ...] = ()


def count_pods(pods: Iterable[Pod]) -> Counts:
    """Count pods by phase and binding."""
    created = bound = running = pending = completed = failed = 0
    for pod in pods:
        created += 1
        bound += pod.spec.node_name is not None
        running += pod.status.phase == "Running"
        completed += pod.status.phase == "Succeeded"
        failed += pod.status.phase == "Failed"
        pending += pod.spec.node_name is None and not pod.finished
    return Counts(created, bound, running, pending, completed, failed)


def draw_row(
    name: str,
    machine: str,
    topology: NodeTopology | None,
    holders: Mapping[str, str],
    unhealthy: Iterable[str],
    *,
    judge: bool = True,
) -> NodeRow:
    """Put a node's row together; `holders` maps uuids to pod names. `judge` asks for the best set.

    A node that has not published its topology yet has no cells.
    """
    if topology is None:
        return NodeRow(name, machine, ())
    ill = set(unhealthy)
    cells = tuple(
        sorted(
            (
                GpuCell(gpu.index, gpu.uuid, holders.get(gpu.uuid, ""), gpu.uuid not in ill)
                for gpu in topology.gpus
            ),
            key=lambda cell: cell.index,
        )
    )
    free = gpuset(
        position
        for position, gpu in enumerate(topology.gpus)
        if gpu.uuid not in holders and gpu.uuid not in ill
    )
    best_size, best_gbs = best_of(classify(topology), free) if judge else (0, 0.0)
    return NodeRow(name, machine, cells, best_size, best_gbs)


@lru_cache(maxsize=4096)
def best_of(cls: TopologyClass, free: GpuSet) -> tuple[int, float]:
    """Return the largest usual size that is free and its best bus bandwidth in GB/s."""
    for wanted in _SIZES:
        if wanted <= size(free):
            return wanted, choose(tables_for(cls), free, wanted).bus_bandwidth_gbs
    return 0, 0.0


def pick_example(rows: Sequence[NodeRow], topologies: Mapping[str, NodeTopology]) -> NodeRow | None:
    """Return the node that shows most: two pods of several GPUs, then most kinds of links."""

    def rank(row: NodeRow) -> tuple[int, int, int, int, str]:
        topology = topologies[row.name]
        links = {
            (level, count)
            for levels, counts in zip(topology.pcie, topology.nvlinks, strict=True)
            for level, count in zip(levels, counts, strict=True)
        }
        held = [cell.holder for cell in row.cells if cell.holder]
        sharing = sum(held.count(holder) > 1 for holder in set(held))
        return (-min(sharing, 2), -len(links), -sharing, -len(held), row.name)

    return min((row for row in rows if row.name in topologies), key=rank, default=None)
