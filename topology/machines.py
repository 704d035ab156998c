"""Machines as values: what `nvidia-smi topo -m` says about one, checked by `machine_yaml`."""

from __future__ import annotations

import msgspec

from topology.links import Level
from topology.model import CountMatrix

CellMatrix = tuple[tuple[str, ...], ...]
KnownLevels = tuple[tuple[Level | None, ...], ...]


class MachineGpu(msgspec.Struct, frozen=True):
    """One GPU: its affinity lists as printed ("" where blank, None where the tool said nothing).

    `pci` is in Linux' form (``0000:8f:00.0``). `gpu_numa_id` is the NUMA node that the GPU's own
    memory appears as (Grace boards). `mig` names the MIG profiles that the GPU is cut into, () for
    MIG without instances, None for a whole GPU.
    """

    index: int
    numa: str | None
    cpus: str | None
    pci: str | None = None
    gpu_numa_id: int | None = None
    mig: tuple[str, ...] | None = None


class MachineNic(msgspec.Struct, frozen=True):
    """One NIC: its level to each GPU; to each NIC too where the report had those columns."""

    name: str
    gpus: tuple[Level, ...]
    nics: tuple[Level, ...] | None = None


class MachineNvLink(msgspec.Struct, frozen=True):
    """The board's NVLinks: how many a GPU has, and over which switches they go.

    `links_per_switch` is () where the report did not tell.
    """

    links_per_gpu: int
    nvswitch: bool
    links_per_switch: tuple[int, ...] = ()


class MachineFabric(msgspec.Struct, frozen=True):
    """What the report said about the multi-node fabric."""

    state: str
    cluster_uuid_nonzero: bool
    clique_nonzero: bool


class Machine(msgspec.Struct, frozen=True):
    """One machine description, checked.

    `links` are the cells as printed; `nvlinks` the counts in them; `levels` the PCIe levels that
    the description tells, None where NVLinks hide the level and no `pcie_links` uncovers it.
    `active_links` counts each GPU's links towards the switch, all 0 without one.
    All stand in index order.
    """

    name: str
    model: str
    gpus: tuple[MachineGpu, ...]
    links: CellMatrix
    pcie_links: CellMatrix | None
    nvlinks: CountMatrix
    levels: KnownLevels
    nics: tuple[MachineNic, ...]
    nvlink: MachineNvLink
    active_links: tuple[int, ...]
    fabric: MachineFabric | None = None
    p2p: str = ""
