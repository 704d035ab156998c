"""The sysfs tree that belongs to a machine, written with real links into a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from mock_nvml.layout import Layout, PciPlace, lay_out
from mock_nvml.products import find_product
from topology.cpulist import format_list, parse_list
from topology.machines import Machine

_NVIDIA: Final = "0x10de"
_MELLANOX: Final = "0x15b3"
_BROADCOM: Final = "0x1000"
_GPU: Final = "0x030200"
_NETWORK: Final = "0x020700"
_BRIDGE: Final = "0x060400"
_NVSWITCH: Final = "0x068000"
_SPEEDS: Final = {3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}


def write_sysfs(
    machine: Machine, root: Path, seed: str = "node", *, hide_switches: bool = False
) -> None:
    """Write the PCI, NUMA and InfiniBand parts of /sys for a machine into the folder `root`.

    `seed` names the node, as for MockNvml; the NICs' GUIDs come from it. NVSwitches of a
    multi-node fabric stand in other trays, so they are no devices of this one. What is there
    already stays, so that a machine can be written again.
    """
    _Tree(machine, root, seed).write(hide_switches=hide_switches)


class _Tree:
    def __init__(self, machine: Machine, root: Path, seed: str) -> None:
        self._machine = machine
        self._root = root
        self._seed = seed
        self._layout: Layout = lay_out(machine)
        self._product = find_product(machine.model)

    def write(self, *, hide_switches: bool) -> None:
        """Write everything."""
        (self._root / "bus" / "pci" / "devices").mkdir(parents=True, exist_ok=True)
        for gpu, place in zip(self._machine.gpus, self._layout.gpus, strict=True):
            self._device(
                place,
                {
                    "class": _GPU,
                    "vendor": _NVIDIA,
                    "device": f"{self._product.device_id:#06x}",
                    **({} if gpu.cpus is None else {"local_cpulist": gpu.cpus}),
                    **self._speed(),
                },
            )
        for at, place in enumerate(self._layout.nics):
            self._nic(at, place)
        fabric = self._machine.fabric
        if not hide_switches and not (fabric and fabric.cluster_uuid_nonzero):
            for place in self._layout.switches:
                self._device(place, {"class": _NVSWITCH, "vendor": _NVIDIA, "device": "0x22a3"})
        self._nodes()

    def _speed(self) -> dict[str, str]:
        speed = f"{_SPEEDS.get(self._product.pcie_gen, '2.5')} GT/s PCIe"
        return {
            "max_link_speed": speed,
            "current_link_speed": speed,
            "max_link_width": "16",
            "current_link_width": "16",
        }

    def _device(self, place: PciPlace, files: dict[str, str]) -> None:
        """Write a device's folder, its bridges', and the links to them by address."""
        folder = self._root / "devices" / place.root
        for bridge in place.bridges:
            folder /= bridge
            self._fill(
                folder,
                bridge,
                place.numa_node,
                {"class": _BRIDGE, "vendor": _BROADCOM},
            )
        self._fill(folder / place.pci, place.pci, place.numa_node, files)

    def _fill(self, folder: Path, pci: str, numa_node: int, files: dict[str, str]) -> None:
        if folder.is_dir():
            return
        folder.mkdir(parents=True)
        for name, text in {"numa_node": str(numa_node), **files}.items():
            (folder / name).write_text(f"{text}\n", encoding="ascii")
        link = self._root / "bus" / "pci" / "devices" / pci
        link.symlink_to(Path("../../..") / folder.relative_to(self._root))

    def _nic(self, at: int, place: PciPlace) -> None:
        name = self._machine.nics[at].name
        self._device(
            place,
            {
                "class": _NETWORK,
                "vendor": _MELLANOX,
                "device": "0x1021",
                "local_cpulist": self._cpus_near(place.numa_node),
                **self._speed(),
            },
        )
        folder = self._root / "devices" / place.folder / "infiniband" / name
        if folder.is_dir():
            return
        folder.mkdir(parents=True)
        guid = hashlib.sha256(f"nic/{self._seed}/{name}".encode()).hexdigest()[:16]
        text = ":".join(guid[start : start + 4] for start in range(0, 16, 4))
        (folder / "node_guid").write_text(f"{text}\n", encoding="ascii")
        (folder / "device").symlink_to("../..")
        index = self._root / "class" / "infiniband"
        index.mkdir(parents=True, exist_ok=True)
        (index / name).symlink_to(os.path.relpath(folder, index))

    def _cpus_near(self, numa_node: int) -> str:
        """Return the CPUs of a node, as far as its GPUs tell them."""
        for gpu, place in zip(self._machine.gpus, self._layout.gpus, strict=True):
            if place.numa_node == numa_node >= 0 and gpu.cpus:
                return gpu.cpus
        return ""

    def _nodes(self) -> None:
        """Write the NUMA nodes that anything names."""
        named = {node for gpu in self._machine.gpus for node in parse_list(gpu.numa or "")}
        named |= {node for node in self._layout.tree.numa_nodes if node >= 0}
        folder = self._root / "devices" / "system" / "node"
        folder.mkdir(parents=True, exist_ok=True)
        for node in named:
            (folder / f"node{node}").mkdir(exist_ok=True)
            (folder / f"node{node}" / "cpulist").write_text(
                f"{self._cpus_near(node)}\n", encoding="ascii"
            )
        (folder / "online").write_text(f"{format_list(named)}\n", encoding="ascii")
