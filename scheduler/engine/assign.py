"""A pod's set, split over its containers: the pod as a whole first, then each container inside it.

The union is what costs the node and what links the pod, so it is chosen first. Inside it the
container with the most GPUs picks first; equals in kubelet's order.
"""

from __future__ import annotations

from scheduler.engine.columns import Hardware
from scheduler.engine.request import Demand, PodRequest
from scheduler.engine.sets import ClassTables
from topology.errors import SelectionError
from topology.gpuset import GpuSet, positions
from topology.profiles import Profile as Policy


def split(
    hardware: Hardware, union: GpuSet, request: PodRequest, policy: Policy, tables: ClassTables
) -> dict[str, GpuSet]:
    """Return each container's set; init containers share the only container's.

    Raises SelectionError if the set is not as large as the request.
    """
    if union.bit_count() != request.demand.count:
        raise SelectionError(f"{union.bit_count()} GPUs for a request of {request.demand.count}")
    shares: dict[str, GpuSet] = {}
    left = union
    for container in sorted(request.containers, key=lambda container: -container.count):
        choice = tables.choose(hardware, left, Demand(container.count), policy)
        if choice is None:
            raise SelectionError(f"container {container.name}: no {container.count} GPUs are left")
        shares[container.name] = choice.members
        left = GpuSet(left & ~choice.members)
    for container in request.init:
        shares[container.name] = union
    return shares


def name_gpus(uuids: tuple[str, ...], shares: dict[str, GpuSet]) -> dict[str, tuple[str, ...]]:
    """Return each container's GPUs by uuid, in the order of their positions."""
    return {
        container: tuple(uuids[position] for position in positions(members))
        for container, members in shares.items()
    }
