"""The topology manager's part, for devices alone: hints, their merge, and what they leave. Pure.

Scope container. A hint is a set of NUMA nodes that could serve a request; it is preferred when no
smaller set could serve it on an idle machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Literal

import msgspec

from embedded.kubelet.devices import Device

Policy = Literal["none", "best-effort", "restricted", "single-numa-node"]

Nodes = frozenset[int]


class Hint(msgspec.Struct, frozen=True):
    """NUMA nodes that could serve a request; None stands for no preference."""

    nodes: Nodes | None
    preferred: bool


class Split(msgspec.Struct, frozen=True):
    """Free devices by how they lie to the nodes that were chosen."""

    aligned: frozenset[str]
    unaligned: frozenset[str]
    without: frozenset[str]


def make_hints(
    devices: Mapping[str, Device],
    available: frozenset[str],
    reusable: frozenset[str],
    request: int,
    nodes: Nodes,
) -> tuple[Hint, ...] | None:
    """Return the node sets that could serve `request`, None if no device tells its node."""
    if not any(device.numa for device in devices.values()):
        return None
    if len(available | reusable) < request:
        return ()
    fitting: list[Nodes] = []
    smallest = len(nodes)
    for mask in _masks(nodes):
        everything = sum(1 for device in devices.values() if mask.intersection(device.numa))
        if everything >= request:
            smallest = min(smallest, len(mask))
        if not all(_on(devices, name, mask) for name in reusable):
            continue
        if sum(1 for name in available | reusable if _on(devices, name, mask)) >= request:
            fitting.append(mask)
    return tuple(Hint(mask, preferred=len(mask) == smallest) for mask in fitting)


def merge_hints(providers: Sequence[tuple[Hint, ...] | None], nodes: Nodes, policy: Policy) -> Hint:
    """Return the best combination of one hint of each provider (a resource of the container)."""
    choices = [_choices(hints, policy) for hints in providers]
    counts = [min((len(h.nodes) for h in c if h.nodes is not None), default=0) for c in choices]
    goal = max(counts, default=0)
    best = Hint(nodes, preferred=False)
    found = False
    for permutation in product(*choices):
        merged = _merge(permutation, nodes)
        if not merged.nodes:
            continue
        if not found or _rank(merged, goal) < _rank(best, goal):
            best, found = merged, True
    return best


def split_devices(
    devices: Mapping[str, Device], available: frozenset[str], affinity: Nodes | None
) -> Split:
    """Sort the free devices of a resource by their nearness to `affinity`; None: all alike."""
    if affinity is None or not any(device.numa for device in devices.values()):
        return Split(frozenset(), frozenset(), available)
    without = frozenset(name for name in available if not _nodes_of(devices, name))
    aligned = frozenset(name for name in available if _on(devices, name, affinity))
    return Split(aligned, available - aligned - without, without)


def _masks(nodes: Nodes) -> Iterable[Nodes]:
    ordered = sorted(nodes)
    for size in range(1, len(ordered) + 1):
        yield from (frozenset(mask) for mask in combinations(ordered, size))


def _nodes_of(devices: Mapping[str, Device], name: str) -> tuple[int, ...]:
    return devices[name].numa if name in devices else ()


def _on(devices: Mapping[str, Device], name: str, nodes: Nodes) -> bool:
    return bool(nodes.intersection(_nodes_of(devices, name)))


def _choices(hints: tuple[Hint, ...] | None, policy: Policy) -> tuple[Hint, ...]:
    if hints is None:
        return (Hint(None, preferred=True),)
    if policy == "single-numa-node":
        hints = tuple(h for h in hints if h.nodes is None or (h.preferred and len(h.nodes) == 1))
    return hints or (Hint(None, preferred=False),)


def _merge(permutation: Sequence[Hint], nodes: Nodes) -> Hint:
    given = [hint.nodes for hint in permutation if hint.nodes is not None]
    merged = nodes.intersection(*given)
    # Preferred only when all are, and when all name the same nodes.
    alike = all(mask == given[0] for mask in given)
    return Hint(merged, preferred=alike and all(hint.preferred for hint in permutation))


def _rank(hint: Hint, goal: int) -> tuple[bool, int, int, int]:
    mask = hint.nodes or frozenset()
    size = len(mask)
    value = sum(1 << node for node in mask)
    # Preferred ones: the narrowest. Others: nearest above what the neediest provider must have.
    distance = 0 if hint.preferred else (size - goal if size >= goal else 1000 - size)
    return (not hint.preferred, distance, size, value)
