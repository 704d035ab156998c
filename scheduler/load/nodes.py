"""What load needs to know of nodes: how large they are, and what others call them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import msgspec

from runtime.errors import QuantityError
from runtime.objects import Node
from runtime.quantity import parse_quantity
from scheduler.load.directory import Directory


class NodeSize(msgspec.Struct, frozen=True):
    """CPUs, bytes and GPUs that pods may use, and CPUs and bytes that the machine has.

    0 where it is not known.
    """

    cpu: float = 0.0
    memory: float = 0.0
    gpus: float = 0.0
    cpu_capacity: float = 0.0
    memory_capacity: float = 0.0


Report = Callable[[str, str, str], None]
"""Told of each quantity that does not read: kind, name of the object, problem."""


class NodeBook:
    """All nodes: one event costs comparisons, the directory is built when it is next asked for.

    `labels` are the series' labels that may name a node, the first that does decides.
    """

    def __init__(self, resource: str, labels: tuple[str, ...], report: Report) -> None:
        self._resource = resource
        self._labels = labels
        self._report = report
        self._raw: dict[str, tuple[object, ...]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._directory: Directory | None = None
        self.sizes: dict[str, NodeSize] = {}

    def take(self, node: Node) -> None:
        """Take a node's new state."""
        name = node.metadata.name
        allocatable, capacity = node.status.allocatable or {}, node.status.capacity or {}
        addresses = tuple(known.address for known in node.status.addresses or ())
        raw = (
            allocatable.get("cpu"),
            allocatable.get("memory"),
            allocatable.get(self._resource),
            capacity.get("cpu"),
            capacity.get("memory"),
        )
        if self._raw.get(name) != raw:
            self._raw[name] = raw
            cpu, memory, gpus, all_cpu, all_memory = (self._read(name, value) for value in raw)
            self.sizes[name] = NodeSize(cpu, memory, gpus, all_cpu or cpu, all_memory or memory)
        if self._addresses.get(name) != addresses:
            self._addresses[name] = addresses
            self._directory = None

    def keep(self, nodes: tuple[Node, ...]) -> None:
        """Take a complete list."""
        listed = {node.metadata.name for node in nodes}
        for name in [name for name in self._raw if name not in listed]:
            self.drop(name)
        for node in nodes:
            self.take(node)

    def drop(self, name: str) -> None:
        """Forget a node."""
        if self._raw.pop(name, None) is not None:
            del self._addresses[name], self.sizes[name]
            self._directory = None

    @property
    def directory(self) -> Directory:
        """The nodes' names by everything that they are called; the same one until they change."""
        if self._directory is None:
            self._directory = Directory.of(self._addresses, self._labels)
        return self._directory

    def _read(self, name: str, value: object) -> float:
        if not isinstance(value, str | int | float):
            return 0.0
        try:
            amount: Fraction = parse_quantity(value)
            return max(float(amount), 0.0)
        except (QuantityError, OverflowError) as error:
            self._report("node", name, str(error))
            return 0.0


def share(part: float, whole: float) -> float:
    """Return a part of a whole from 0 to 1; nothing of a whole that is not known."""
    return min(part / whole, 1.0) if whole > 0 else 0.0
