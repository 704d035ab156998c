"""A topology as matrices of `nvidia-smi topo -m` cells, GPUs in NVML's index order."""

from __future__ import annotations

import msgspec

from topology.links import CELL_OF_LEVEL, format_cell
from topology.model import NodeTopology


class NicRow(msgspec.Struct, frozen=True):
    """A NIC's cells to each GPU and each NIC, named as in a machine description."""

    name: str
    gpus: tuple[str, ...]
    nics: tuple[str, ...]


def index_order(topology: NodeTopology) -> tuple[int, ...]:
    """Return the GPUs' positions in the order of their NVML indexes."""
    return tuple(sorted(range(len(topology.gpus)), key=lambda at: topology.gpus[at].index))


def links_cells(topology: NodeTopology) -> list[list[str]]:
    """Return the cells of `topo -m`: the NVLinks of a pair where it has some, else its level."""
    order = index_order(topology)
    return [
        [format_cell(topology.pcie[a][b], topology.nvlinks[a][b]) for b in order] for a in order
    ]


def pcie_cells(topology: NodeTopology) -> list[list[str]]:
    """Return the cells of `topo -mp`: the PCIe level of each pair."""
    order = index_order(topology)
    return [[CELL_OF_LEVEL[topology.pcie[a][b]] for b in order] for a in order]


def nic_rows(topology: NodeTopology) -> list[NicRow]:
    """Return each NIC's cells."""
    order = index_order(topology)
    return [
        NicRow(
            name=nic.name,
            gpus=tuple(CELL_OF_LEVEL[nic.gpus[at]] for at in order),
            nics=tuple(CELL_OF_LEVEL[level] for level in nic.nics),
        )
        for nic in topology.nics
    ]
