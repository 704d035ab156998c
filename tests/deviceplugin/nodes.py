"""Nodes, pods and kubelet's answers for tests of the device plugin."""

from __future__ import annotations

from collections.abc import Mapping

from deviceplugin.admission.choosers import Choosers
from deviceplugin.config.model import Config
from deviceplugin.errors import PodResourcesError
from deviceplugin.pods.holdings import Holdings, PodHoldings, Reading
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock, take_stock
from runtime.objects import Container, ObjectMeta, Pod, PodSpec, PodStatus, Resources
from topology.links import Level
from topology.model import Gpu, NodeTopology
from topology.wire import ASSIGNMENT_KEY, STRICT_KEY, Assignment, encode_assignment

RESOURCE = "nvidia.com/gpu"

# NVLinks of the reference machines, drawn link by link.
DGX1V = {
    **dict.fromkeys([(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)], 2),
    **dict.fromkeys([(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)], 1),
}
PAIRS = {(0, 1): 4, (2, 3): 4, (4, 5): 4, (6, 7): 4}


def machine(
    count: int, links: Mapping[tuple[int, int], int] | None = None, *, numa: bool = True
) -> NodeTopology:
    """Return a node of two sockets with these NVLinks; GPU i is called ``g<i>``."""
    links = links or {}
    half = count // 2 if count > 1 else 1

    def level(i: int, j: int) -> Level:
        if i == j:
            return Level.SELF
        return Level.PHB if (i < half) == (j < half) else Level.SYS

    return NodeTopology(
        gpus=tuple(
            Gpu(
                uuid=f"g{i}",
                index=i,
                minor=i,
                pci=f"0000:{i + 16:02x}:00.0",
                model="V100",
                compute="7.0",
                pcie_gen=3,
                numa_node=(0 if i < half else 1) if numa else None,
            )
            for i in range(count)
        ),
        nvlinks=tuple(
            tuple(links.get((min(i, j), max(i, j)), 0) if i != j else 0 for j in range(count))
            for i in range(count)
        ),
        switch=(-1,) * count,
        pcie=tuple(tuple(level(i, j) for j in range(count)) for i in range(count)),
    )


CHOOSERS = Choosers("training")


def names(*positions: int) -> tuple[str, ...]:
    """Return the uuids of these GPUs."""
    return tuple(f"g{position}" for position in positions)


def pod(
    name: str,
    *counts: int,
    promised: Mapping[str, tuple[str, ...]] | None = None,
    annotation: str | None = None,
    phase: str = "Pending",
    strict: bool = False,
    uid: str = "",
    deleted: bool = False,
    sidecars: tuple[int, ...] = (),
) -> Pod:
    """Return a pod of namespace ``d`` whose containers c0, c1, ... request these counts."""
    annotations: dict[str, str] = {}
    if promised is not None:
        annotations[ASSIGNMENT_KEY] = encode_assignment(Assignment(dict(promised)))
    if annotation is not None:
        annotations[ASSIGNMENT_KEY] = annotation
    if strict:
        annotations[STRICT_KEY] = "true"

    def container(label: str, count: int, restart: str | None = None) -> Container:
        limits: dict[str, str | int | float] = {RESOURCE: str(count)} if count else {}
        return Container(
            name=label, resources=Resources(requests=limits, limits=limits), restart_policy=restart
        )

    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="d",
            uid=uid or f"uid-{name}",
            annotations=annotations,
            deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None,
        ),
        spec=PodSpec(
            containers=tuple(container(f"c{n}", count) for n, count in enumerate(counts)),
            init_containers=tuple(
                container(f"s{n}", count, "Always") for n, count in enumerate(sidecars)
            ),
            node_name="n1",
        ),
        status=PodStatus(phase=phase),
    )


def by_key(*pods: Pod) -> dict[str, Pod]:
    """Return what a watch would know."""
    return {one.key: one for one in pods}


def holdings(**pods: Mapping[str, tuple[str, ...]]) -> Holdings:
    """Return kubelet's answer: pod name of namespace ``d`` to containers to uuids."""
    return Holdings(
        {f"d/{name}": PodHoldings(f"d/{name}", dict(held)) for name, held in pods.items()}
    )


def reading_of(held: Holdings, resource: str = RESOURCE) -> Reading:
    """Return kubelet's whole answer that reduces to these holdings."""
    return Reading(
        {
            key: {name: {resource: ids} for name, ids in one.containers.items()}
            for key, one in held.pods.items()
        }
    )


class FakePodResources:
    """kubelet's PodResources: answers what it is told to, or fails, and counts."""

    def __init__(self, answer: Holdings | None = None) -> None:
        self.answer = answer
        self.calls = 0

    def list(self, timeout: float) -> Reading:
        """Return the answer; None stands for a kubelet that does not answer."""
        self.calls += 1
        if self.answer is None:
            raise PodResourcesError(f"DEADLINE_EXCEEDED after {timeout:g} s")
        return reading_of(self.answer)


def stock_of(
    topology: NodeTopology,
    unhealthy: Mapping[str, str] | None = None,
    config: Config | None = None,
) -> Stock:
    """Return what a node offers."""
    return take_stock(Inventory(topology, dict(unhealthy or {})), config or Config())


class FakeClock:
    """Time that passes only when told. `asked` counts the looks at it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.asked = 0

    def __call__(self) -> float:
        """Return the time in seconds."""
        self.asked += 1
        return self.now
