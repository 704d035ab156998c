"""A request for a GPU set, the checks that it is possible, and the answer."""

from __future__ import annotations

import msgspec

from topology.demands import MinLink
from topology.errors import SelectionError
from topology.gpuset import GpuSet, format_positions, size


class Request(msgspec.Struct, frozen=True):
    """`count` of the `free` GPUs: all of `must`, none outside `allowed`, no pair below `min_link`.

    What is left is judged over all of `free`, also over those that are not allowed.
    """

    free: GpuSet
    count: int
    must: GpuSet
    allowed: GpuSet
    min_link: MinLink | None


class Choice(msgspec.Struct, frozen=True):
    """The set chosen.

    `bus_bandwidth_gbs` is its predicted bus bandwidth in GB/s, `pair_score` the reference
    allocator's score of it, `loss` what the free GPUs lose of their worth to the pods to come
    (0 to 1), `worst_link` the link of its worst pair, None for one GPU.
    """

    members: GpuSet
    bus_bandwidth_gbs: float
    pair_score: int
    loss: float
    worst_link: MinLink | None


def check_request(request: Request, everything: GpuSet) -> None:
    """Raise SelectionError with one line if no set can satisfy the request's counts."""
    free, must, usable = request.free, request.must, GpuSet(request.free & request.allowed)
    if free < 0 or free & ~everything:
        raise SelectionError("available: there are GPUs that the node does not have")
    if request.count < 1:
        raise SelectionError(f"size {request.count}: at least one GPU must be asked for")
    if must & ~usable:
        missing = format_positions(GpuSet(must & ~usable & everything)) or "of another node"
        raise SelectionError(f"must: GPU {missing} is not available")
    if request.count > size(usable):
        left = size(usable)
        there = f"only {left} GPU is" if left == 1 else f"only {left} GPUs are"
        raise SelectionError(f"size {request.count}: {there} available")
    if size(must) > request.count:
        raise SelectionError(f"must: {size(must)} GPUs do not fit a set of {request.count}")


def refuse(request: Request) -> SelectionError:
    """Return the error for a request whose counts fit but whose min-link no set meets."""
    return SelectionError(
        f"min-link {request.min_link}: no {request.count} of the available GPUs are linked so"
    )
