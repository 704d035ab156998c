"""A machine with all that discovery needs: the mock behind pynvml, and its sysfs in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from deviceplugin.discovery.topology import Discovery, discover
from deviceplugin.nvml.library import PynvmlNvml, open_nvml
from mock_nvml import MockNvml, write_sysfs
from topology.links import CELL_OF_LEVEL
from topology.machines import Machine
from topology.matrix import links_cells, nic_rows, pcie_cells
from topology.model import NodeTopology

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - not shared
"""A tree of hundreds of small files is made for each machine: memory is faster than a disk."""


class Rig(NamedTuple):
    """The parts."""

    mock: MockNvml
    nvml: PynvmlNvml
    root: Path

    def discover(self) -> Discovery:
        """Discover the machine as it is now."""
        return discover(self.nvml, self.root)


@contextmanager
def rig(machine: Machine, **options: Any) -> Iterator[Rig]:
    """Set a machine up; all is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gputopo-", dir=MEMORY) as folder:
        write_sysfs(machine, Path(folder), hide_switches=options.get("hide_switches", False))
        with MockNvml(machine, **options) as mock, open_nvml() as nvml:
            yield Rig(mock, nvml, Path(folder))


def differences(machine: Machine, topology: NodeTopology) -> list[str]:
    """Return where a topology differs from what the machine's description tells."""
    found: list[str] = []
    if links_cells(topology) != [list(row) for row in machine.links]:
        found.append("links")
    levels = pcie_cells(topology)
    for a, row in enumerate(machine.levels):
        found += [
            f"pcie[{a}][{b}]: {levels[a][b]}"
            for b, level in enumerate(row)
            if level is not None and levels[a][b] != CELL_OF_LEVEL[level]
        ]
    rows = nic_rows(topology)
    if [row.name for row in rows] != [nic.name for nic in machine.nics]:
        found.append("names of NICs")
    for shown, nic in zip(rows, machine.nics, strict=False):
        if shown.gpus != tuple(CELL_OF_LEVEL[level] for level in nic.gpus):
            found.append(f"{nic.name}.gpus")
        if nic.nics and shown.nics != tuple(CELL_OF_LEVEL[level] for level in nic.nics):
            found.append(f"{nic.name}.nics")
    for gpu in sorted(topology.gpus, key=lambda gpu: gpu.index):
        told = machine.gpus[gpu.index]
        if (gpu.numa, gpu.cpus) != (told.numa, told.cpus):
            found.append(f"affinity of GPU {gpu.index}: {gpu.numa!r}, {gpu.cpus!r}")
    return found
