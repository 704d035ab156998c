"""Nodes and pods for the scheduler's tests: small machines built link by link, objects as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from topology.gpuset import GpuSet
from topology.links import Level
from topology.model import Gpu, NodeTopology
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    TOPOLOGY_KEY,
    Assignment,
    NodeState,
    encode_assignment,
    encode_state,
    encode_topology,
)

RESOURCE = "nvidia.com/gpu"


def machine(
    links: Mapping[tuple[int, int], int],
    *,
    count: int,
    switch: bool = False,
    prefix: str = "GPU",
    model: str = "NVIDIA A100-SXM4-40GB",
    memory_mib: int = 40960,
) -> NodeTopology:
    """Build a machine: the first half of the GPUs on one socket, `links` are NVLinks by pair."""
    half = (count + 1) // 2

    def level(one: int, other: int) -> Level:
        if one == other:
            return Level.SELF
        return Level.NODE if (one < half) == (other < half) else Level.SYS

    def nvlinks(one: int, other: int) -> int:
        return links.get((one, other), links.get((other, one), 0))

    return NodeTopology(
        gpus=tuple(
            Gpu(
                uuid=f"{prefix}-{position}",
                index=position,
                minor=position,
                pci=f"0000:{position + 1:02x}:00.0",
                model=model,
                compute="8.0",
                memory_mib=memory_mib,
                pcie_gen=4,
                numa_node=int(position >= half),
            )
            for position in range(count)
        ),
        nvlinks=tuple(tuple(nvlinks(i, j) for j in range(count)) for i in range(count)),
        switch=(0 if switch else -1,) * count,
        pcie=tuple(tuple(level(i, j) for j in range(count)) for i in range(count)),
    )


def pcie(count: int = 4, **given: Any) -> NodeTopology:
    """Build a machine without NVLinks."""
    return machine({}, count=count, **given)


def mesh(count: int = 4, links: int = 4, **given: Any) -> NodeTopology:
    """Build a machine whose GPUs are all joined directly."""
    pairs = {(i, j): links for i in range(count) for j in range(i)}
    return machine(pairs, count=count, **given)


def switched(count: int = 8, **given: Any) -> NodeTopology:
    """Build a machine with one NVSwitch."""
    pairs = {(i, j): 12 for i in range(count) for j in range(i)}
    return machine(pairs, count=count, switch=True, **given)


def bridged(count: int = 4, **given: Any) -> NodeTopology:
    """Build a machine with an NVLink bridge over each two neighbours."""
    return machine({(i, i + 1): 4 for i in range(0, count - 1, 2)}, count=count, **given)


def members_of(topology: NodeTopology, uuids: Iterable[str]) -> GpuSet:
    """Return the positions of these GPUs."""
    return topology.set_of_uuids(list(uuids))


def node_object(
    name: str,
    topology: NodeTopology | None = None,
    state: NodeState | None = None,
    *,
    allocatable: int | None = None,
    annotations: Mapping[str, str] | None = None,
    amounts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a Node as the API server holds it; `amounts` are CPU, memory and places for pods."""
    written = dict(annotations or {})
    if topology is not None:
        written.setdefault(TOPOLOGY_KEY, encode_topology(topology))
    if state is not None:
        written.setdefault(STATE_KEY, encode_state(state))
    if allocatable is None:
        allocatable = len(topology.gpus) if topology is not None else 8
    amounts = {RESOURCE: str(allocatable), **(amounts or {"cpu": "96"})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": written},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def container(name: str, gpus: int | str, **given: Any) -> dict[str, Any]:
    """Write a container of a pod."""
    limits = {RESOURCE: str(gpus)} if gpus not in {0, "0"} else {}
    return {"name": name, "image": "app", "resources": {"limits": limits}, **given}


def pod_object(
    name: str,
    gpus: int | str = 1,
    *,
    uid: str = "",
    node: str = "",
    phase: str = "Pending",
    annotations: Mapping[str, str] | None = None,
    assigned: Mapping[str, tuple[str, ...]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Write a Pod as the API server holds it; `assigned` writes our annotation."""
    written = dict(annotations or {})
    if assigned is not None:
        written[ASSIGNMENT_KEY] = encode_assignment(Assignment(dict(assigned)))
    spec.setdefault("containers", [container("main", gpus)])
    if node:
        spec["nodeName"] = node
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "annotations": written}
    if uid:
        metadata["uid"] = uid
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": phase},
    }
