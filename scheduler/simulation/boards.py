"""Which machine stands behind a node of a trace, and what sets of its GPUs are worth.

A trace tells models and counts, but no links. Without machines all GPUs of a node are alike to
each other, and links decide nothing. With them a node of a model and a number of GPUs is one of
the shipped machines, cut down to that number.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from scheduler.engine.columns import Hardware, hardware_of
from topology.gpuset import GpuSet
from topology.links import Level
from topology.model import Gpu, NodeTopology, TopologyClass
from topology.reference import ReferenceAllocator
from topology.tables import DEFAULT_MIX, Mix, tables_for
from traces.openb import Node

Machines = Mapping[tuple[str, int], NodeTopology]
"""The machine of each (model, number of GPUs)."""


class Boards:
    """The hardware of nodes by model and number of GPUs."""

    def __init__(self, machines: Machines | None = None, mix: Mix = DEFAULT_MIX) -> None:
        self.linked = machines is not None
        self._machines: Machines = machines or {}
        self._mix = mix
        self._hardware: dict[tuple[str, int], Hardware] = {}
        self._allocators: dict[TopologyClass, ReferenceAllocator] = {}

    def hardware(self, node: Node) -> Hardware:
        """Return what a node's GPUs are."""
        key = node.model, node.gpus
        known = self._hardware.get(key)
        if known is None:
            known = self._hardware[key] = self._make(node)
        return known

    def _make(self, node: Node) -> Hardware:
        machine = self._machines.get((node.model, node.gpus)) or flat_machine(node.gpus)
        # The list's own name for the model: that is what its tasks ask for.
        return msgspec.structs.replace(
            hardware_of(machine), models=(node.model,) * node.gpus, memory_mib=(0,) * node.gpus
        )

    def reference_set(self, hardware: Hardware, free: GpuSet, count: int) -> GpuSet:
        """Return what the reference device plugin would prefer of the free GPUs."""
        allocator = self._allocators.get(hardware.links)
        if allocator is None:
            allocator = self._allocators[hardware.links] = ReferenceAllocator(hardware.links)
        return allocator.allocate(free, count)

    def bandwidth(self, hardware: Hardware, members: GpuSet) -> float:
        """Return the predicted bus bandwidth of a set in GB/s."""
        return float(tables_for(hardware.links, self._mix).quality[members])


def flat_machine(gpus: int) -> NodeTopology:
    """Return a machine whose GPUs are all alike to each other."""
    return NodeTopology(
        gpus=tuple(
            Gpu(uuid=f"GPU-{at}", index=at, minor=at, pci=f"0000:{at + 1:02x}:00.0", model="")
            for at in range(gpus)
        ),
        nvlinks=((0,) * gpus,) * gpus,
        switch=(-1,) * gpus,
        pcie=tuple(
            tuple(Level.SELF if i == j else Level.PHB for j in range(gpus)) for i in range(gpus)
        ),
    )


def cut_machine(machine: NodeTopology, gpus: int) -> NodeTopology:
    """Return a machine of the first GPUs of another; its NICs stay."""
    return NodeTopology(
        gpus=machine.gpus[:gpus],
        nvlinks=tuple(row[:gpus] for row in machine.nvlinks[:gpus]),
        switch=machine.switch[:gpus],
        pcie=tuple(row[:gpus] for row in machine.pcie[:gpus]),
        nics=tuple(msgspec.structs.replace(nic, gpus=nic.gpus[:gpus]) for nic in machine.nics),
    )
