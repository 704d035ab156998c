"""What a node's GPUs are and how they are linked: frozen values, checked when they are made."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from topology.cpulist import parse_list
from topology.errors import ModelError
from topology.gpuset import GpuSet, full_set, gpuset
from topology.links import MAX_NVLINKS, Level

MAX_GPUS: Final = 64
"""The most GPUs of one node that the model takes: a set is one 64-bit mask."""

PCI_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
"""How Linux names a PCI device: domain:bus:device.function, lower case."""

LevelMatrix = tuple[tuple[Level, ...], ...]
CountMatrix = tuple[tuple[int, ...], ...]


class Gpu(msgspec.Struct, frozen=True):
    """One physical GPU.

    `uuid` is its only lasting name. `index` is NVML's and `minor` that of /dev/nvidiaN; both may
    change with a reset. `pci` is Linux' address (``0000:07:00.0``). `compute` is the CUDA compute
    capability (``9.0``), which decides the rate of a link; "" if unknown. `pcie_gen` is the
    PCIe generation of the slot, 0 if unknown. `numa` and `cpus` are affinity lists in Linux'
    format as the system tells them, None where it tells nothing. `numa_node` is the one NUMA node
    for kubelet's alignment, None if unknown.
    """

    uuid: str
    index: int
    minor: int
    pci: str
    model: str
    compute: str = ""
    memory_mib: int = 0
    pcie_gen: int = 0
    numa: str | None = None
    cpus: str | None = None
    numa_node: int | None = None

    def __post_init__(self) -> None:
        if not self.uuid:
            raise ModelError(f"GPU {self.index}: empty uuid")
        if self.index < 0 or self.minor < 0:
            raise ModelError(f"GPU {self.uuid}: negative index or minor")
        if not PCI_ADDRESS.fullmatch(self.pci):
            raise ModelError(f"GPU {self.uuid}: {self.pci!r} is not a PCI address")
        for name, text in (("numa", self.numa), ("cpus", self.cpus)):
            try:
                parse_list(text or "")
            except ValueError as error:
                raise ModelError(f"GPU {self.uuid}: {name}: {error}") from None


class Nic(msgspec.Struct, frozen=True):
    """One network interface: its level to each GPU, and to each NIC, in the topology's order."""

    name: str
    pci: str
    gpus: tuple[Level, ...]
    nics: tuple[Level, ...]


class Clique(msgspec.Struct, frozen=True):
    """The multi-node NVLink domain that the node's GPUs belong to."""

    cluster_uuid: str
    clique_id: int


class NodeTopology(msgspec.Struct, frozen=True):
    """A node's GPUs in the order of their PCI addresses, and both axes of their links.

    `nvlinks[i][j]` counts the NVLinks that join GPU i and j, through a switch or directly; 0 on
    the diagonal. `switch[i]` numbers the NVSwitch group of GPU i, -1 if it hangs on none: GPUs of
    one group reach each other at full rate all at once. `pcie[i][j]` is the PCIe level, also
    where NVLinks hide it; SELF on the diagonal.
    """

    gpus: tuple[Gpu, ...]
    nvlinks: CountMatrix
    switch: tuple[int, ...]
    pcie: LevelMatrix
    nics: tuple[Nic, ...] = ()
    clique: Clique | None = None

    def __post_init__(self) -> None:
        count = len(self.gpus)
        if count > MAX_GPUS:
            raise ModelError(f"{count} GPUs: at most {MAX_GPUS} fit a node")
        if len({gpu.uuid for gpu in self.gpus}) != count:
            raise ModelError("two GPUs have one uuid")
        if len({gpu.index for gpu in self.gpus}) != count:
            raise ModelError("two GPUs have one index")
        if len(self.switch) != count:
            raise ModelError(f"switch: {len(self.switch)} entries for {count} GPUs")
        _check_square("nvlinks", self.nvlinks, count)
        _check_square("pcie", self.pcie, count)
        for row in range(count):
            for column in range(count):
                _check_pair(row, column, self.nvlinks[row][column], self.pcie[row][column])
        for nic in self.nics:
            if len(nic.gpus) != count or len(nic.nics) != len(self.nics):
                raise ModelError(f"NIC {nic.name}: its rows do not match the GPUs and NICs")

    @property
    def everything(self) -> GpuSet:
        """The set of all GPUs."""
        return full_set(len(self.gpus))

    def position_of(self) -> dict[str, int]:
        """Map each uuid to its position."""
        return {gpu.uuid: position for position, gpu in enumerate(self.gpus)}

    def set_of_uuids(self, uuids: tuple[str, ...] | list[str]) -> GpuSet:
        """Return the set of these GPUs; raises ModelError naming one that the node lacks."""
        where = self.position_of()
        try:
            return gpuset(where[uuid] for uuid in uuids)
        except KeyError as error:
            raise ModelError(f"no GPU {error.args[0]} on this node") from None

    def set_of_indexes(self, indexes: tuple[int, ...]) -> GpuSet:
        """Return the set of GPUs by NVML index; raises ModelError naming one that is not there."""
        where = {gpu.index: position for position, gpu in enumerate(self.gpus)}
        try:
            return gpuset(where[index] for index in indexes)
        except KeyError as error:
            raise ModelError(f"no GPU with index {error.args[0]} on this node") from None


def _check_square(name: str, matrix: tuple[tuple[int, ...], ...] | LevelMatrix, count: int) -> None:
    if len(matrix) != count or any(len(row) != count for row in matrix):
        raise ModelError(f"{name}: not a {count} x {count} matrix")
    for row in range(count):
        for column in range(row):
            if matrix[row][column] != matrix[column][row]:
                raise ModelError(f"{name}[{row}][{column}] differs from its mirror")


def _check_pair(row: int, column: int, links: int, level: Level) -> None:
    if not 0 <= links <= MAX_NVLINKS:
        raise ModelError(f"nvlinks[{row}][{column}]: {links} links")
    if row == column and links:
        raise ModelError(f"nvlinks[{row}][{row}]: a GPU has no link to itself")
    if (row == column) != (level is Level.SELF):
        raise ModelError(f"pcie[{row}][{column}]: {level.name}")


class TopologyClass(msgspec.Struct, frozen=True, cache_hash=True):
    """What remains of a NodeTopology when names are removed; equal hardware, equal class.

    It is hashable and is the key of every table. `compute` and `pcie_gen` are each GPU's;
    `numa` is -1 where unknown; `nic` is each GPU's nearest NIC level, SYS if there is none.
    """

    nvlinks: CountMatrix
    switch: tuple[int, ...]
    pcie: LevelMatrix
    compute: tuple[str, ...]
    pcie_gen: tuple[int, ...]
    numa: tuple[int, ...]
    nic: tuple[Level, ...]

    @property
    def count(self) -> int:
        """How many GPUs the class has."""
        return len(self.switch)


def classify(topology: NodeTopology) -> TopologyClass:
    """Return the class of a node."""
    return TopologyClass(
        nvlinks=topology.nvlinks,
        switch=topology.switch,
        pcie=topology.pcie,
        compute=tuple(gpu.compute for gpu in topology.gpus),
        pcie_gen=tuple(gpu.pcie_gen for gpu in topology.gpus),
        numa=tuple(-1 if gpu.numa_node is None else gpu.numa_node for gpu in topology.gpus),
        nic=tuple(
            min((nic.gpus[position] for nic in topology.nics), default=Level.SYS)
            for position in range(len(topology.gpus))
        ),
    )
