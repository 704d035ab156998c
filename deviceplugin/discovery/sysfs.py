"""What sysfs says of PCI devices: their paths, hence their levels; NUMA nodes; CPUs; NICs.

Unlike NVML's answers these are not cut by the caller's cpuset. The root is a parameter (``/sys``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from topology.cpulist import parse_list
from topology.links import Level
from topology.pci import pci_order

_ROOT: Final = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_NVIDIA: Final = "0x10de"
_DISPLAYS: Final = ("0x0300", "0x0302")
"""PCI classes of GPUs with and without an output."""
_DEVICE: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class PciPath(msgspec.Struct, frozen=True):
    """Where a device hangs: its host bridge, the bridges down to it, and itself.

    `numa_node` is -1 where the firmware names none.
    """

    root: str
    bridges: tuple[str, ...]
    device: str
    numa_node: int


class PciNic(msgspec.Struct, frozen=True):
    """A network interface that sits on the PCI bus; a virtual function is one too."""

    name: str
    path: PciPath


def compare_paths(first: PciPath, second: PciPath) -> Level:
    """Return the PCIe level of two devices.

    A switch stands in a path as two bridges, its port towards the CPU and one towards the device.
    So at most one bridge of each side below the last common one means that a single switch (or a
    bridge) is crossed: PIX. More is PXB.
    """
    if first.device == second.device:
        return Level.SELF
    if first.root != second.root:
        same_node = first.numa_node >= 0 and first.numa_node == second.numa_node
        return Level.NODE if same_node else Level.SYS
    common = 0
    for mine, theirs in zip(first.bridges, second.bridges, strict=False):
        if mine != theirs:
            break
        common += 1
    if common == 0:
        return Level.PHB
    below = max(len(first.bridges), len(second.bridges)) - common
    return Level.PIX if below <= 1 else Level.PXB


def read_path(sysfs_root: Path, pci: str) -> PciPath | None:
    """Return where a device hangs, None if sysfs does not show it."""
    try:
        real = (sysfs_root / "bus" / "pci" / "devices" / pci).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return _split_path(real)


def _split_path(real: Path) -> PciPath | None:
    parts = real.parts
    for start, part in enumerate(parts):
        chain = parts[start + 1 :]
        # The root's own folder may sit anywhere; the last part of that form starts the chain.
        if _ROOT.fullmatch(part) and chain and all(_DEVICE.fullmatch(name) for name in chain):
            return PciPath(
                root=part, bridges=chain[:-1], device=chain[-1], numa_node=_read_numa_node(real)
            )
    return None


def _read_numa_node(folder: Path) -> int:
    text = _read(folder / "numa_node")
    try:
        return max(int(text or "-1"), -1)
    except ValueError:
        return -1


def read_cpus(sysfs_root: Path, pci: str) -> str | None:
    """Return a device's near CPUs as the kernel lists them, None where it does not or garbles."""
    text = _read(sysfs_root / "bus" / "pci" / "devices" / pci / "local_cpulist")
    try:
        parse_list(text or "")
    except ValueError:
        return None
    return text


def read_gpus(sysfs_root: Path) -> frozenset[str]:
    """Return the PCI addresses of NVIDIA's GPUs that the driver has, or that no driver has yet.

    One that was given to a virtual machine (vfio-pci) is none of ours.
    """
    folder = sysfs_root / "bus" / "pci" / "devices"
    found: set[str] = set()
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return frozenset()
    for name in names:
        device = folder / name
        if _read(device / "vendor") != _NVIDIA:
            continue
        driver = _link(device / "driver")
        if (_read(device / "class") or "").startswith(_DISPLAYS) and driver in {"", "nvidia"}:
            found.add(name)
    return frozenset(found)


def _link(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""


def read_nics(sysfs_root: Path) -> tuple[PciNic, ...]:
    """Return the RDMA interfaces in the order of their PCI addresses.

    Interfaces without a PCI device (software RDMA) are left out.
    """
    folder = sysfs_root / "class" / "infiniband"
    nics: list[PciNic] = []
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ()
    for name in names:
        try:
            real = (folder / name / "device").resolve(strict=True)
        except (OSError, RuntimeError):
            continue
        path = _split_path(real)
        if path is not None:
            nics.append(PciNic(name=name, path=path))
    # A card that shows several interfaces on one function is told apart by name.
    return tuple(sorted(nics, key=lambda nic: (pci_order(nic.path.device), nic.name)))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
