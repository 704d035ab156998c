"""Reading sysfs: levels by path, NUMA nodes, CPUs, NICs."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.discovery.sysfs import (
    PciPath,
    compare_paths,
    read_cpus,
    read_gpus,
    read_nics,
    read_path,
)
from topology.links import Level

ROOT = "pci0000:00"


def at(device: str, *bridges: str, root: str = ROOT, node: int = 0) -> PciPath:
    """Return where a device hangs."""
    return PciPath(root=root, bridges=bridges, device=device, numa_node=node)


PORT, UP, DOWN_1, DOWN_2 = "0000:00:01.0", "0000:01:00.0", "0000:02:00.0", "0000:02:01.0"
LEAF_1, LEAF_2 = ("0000:03:00.0", "0000:04:00.0"), ("0000:05:00.0", "0000:06:00.0")

LEVELS = [
    ("two ports of a switch", at("a", PORT, UP, DOWN_1), at("b", PORT, UP, DOWN_2), Level.PIX),
    ("two functions of a card", at("a", PORT), at("b", PORT), Level.PIX),
    (
        "two switches under one",
        at("a", PORT, UP, DOWN_1, *LEAF_1),
        at("b", PORT, UP, DOWN_2, *LEAF_2),
        Level.PXB,
    ),
    (
        "a switch and its upper one",
        at("a", PORT, UP, DOWN_1),
        at("b", PORT, UP, DOWN_2, *LEAF_2),
        Level.PXB,
    ),
    ("two root ports", at("a", PORT), at("b", "0000:00:02.0"), Level.PHB),
    ("no bridges at all", at("a"), at("b"), Level.PHB),
    ("two host bridges of a node", at("a", PORT), at("b", PORT, root="pci0000:40"), Level.NODE),
    ("two nodes", at("a", PORT), at("b", PORT, root="pci0000:80", node=1), Level.SYS),
    (
        "nodes unknown",
        at("a", PORT, node=-1),
        at("b", PORT, root="pci0000:80", node=-1),
        Level.SYS,
    ),
    ("itself", at("a", PORT), at("a", PORT), Level.SELF),
]


@pytest.mark.parametrize(
    ("first", "second", "level"), [row[1:] for row in LEVELS], ids=[row[0] for row in LEVELS]
)
def test_paths_give_levels(first: PciPath, second: PciPath, level: Level) -> None:
    """Both ways round, as `nvidia-smi topo -m` names them."""
    assert compare_paths(first, second) is level
    assert compare_paths(second, first) is level


def hang(root: Path, chain: str, numa: str | None = "1") -> Path:
    """Hang a device into a tree and link it by its address."""
    folder = root / "devices" / chain
    folder.mkdir(parents=True)
    if numa is not None:
        (folder / "numa_node").write_text(f"{numa}\n", encoding="ascii")
    index = root / "bus" / "pci" / "devices"
    index.mkdir(parents=True, exist_ok=True)
    (index / folder.name).symlink_to(folder)
    return folder


def test_a_path_is_read_from_the_link(tmp_path: Path) -> None:
    """The host bridge, the bridges in order, the device, its node."""
    hang(tmp_path, f"{ROOT}/{PORT}/{UP}/{DOWN_1}/0000:07:00.0")
    path = read_path(tmp_path, "0000:07:00.0")
    assert path == PciPath(
        root=ROOT, bridges=(PORT, UP, DOWN_1), device="0000:07:00.0", numa_node=1
    )


@pytest.mark.parametrize("numa", [None, "-1", "", "many", "-7"])
def test_an_unknown_node_is_minus_one(tmp_path: Path, numa: str | None) -> None:
    """Whether the file is missing, says so, or is garbled."""
    hang(tmp_path, f"{ROOT}/0000:07:00.0", numa)
    path = read_path(tmp_path, "0000:07:00.0")
    assert path is not None
    assert path.numa_node == -1


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """A device that sysfs lacks, a link to nowhere, a loop, and a folder that is no PCI path."""
    index = tmp_path / "bus" / "pci" / "devices"
    index.mkdir(parents=True)
    (index / "0000:01:00.0").symlink_to("nowhere")
    (index / "0000:02:00.0").symlink_to("0000:02:00.0")
    (index / "0000:03:00.0").mkdir()
    for pci in ("0000:00:00.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        assert read_path(tmp_path, pci) is None
        assert read_cpus(tmp_path, pci) is None


def test_cpus_are_what_the_kernel_lists(tmp_path: Path) -> None:
    """An empty list is one; a garbled one is none."""
    folder = hang(tmp_path, f"{ROOT}/0000:07:00.0")
    for text, cpus in (("0-3,8\n", "0-3,8"), ("\n", ""), ("lots\n", None)):
        (folder / "local_cpulist").write_text(text, encoding="ascii")
        assert read_cpus(tmp_path, "0000:07:00.0") == cpus


def test_nics_come_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    """Virtual functions count, interfaces without a PCI device do not."""
    index = tmp_path / "class" / "infiniband"
    index.mkdir(parents=True)
    for name, address in (("mlx5_0", "0000:a0:00.0"), ("mlx5_10", "0000:20:00.1")):
        folder = hang(tmp_path, f"{ROOT}/{PORT}/{address}")
        (index / name).mkdir()
        (index / name / "device").symlink_to(folder)
    (tmp_path / "bus" / "pci" / "devices" / "0000:20:00.1" / "physfn").symlink_to("../0000:20:00.0")
    (index / "rxe0").mkdir()
    nics = read_nics(tmp_path)
    assert [(nic.name, nic.path.device) for nic in nics] == [
        ("mlx5_10", "0000:20:00.1"),
        ("mlx5_0", "0000:a0:00.0"),
    ]


def test_a_system_without_infiniband_has_no_nics(tmp_path: Path) -> None:
    """The folder is simply not there."""
    assert read_nics(tmp_path) == ()


def test_gpus_are_nvidias_and_not_given_away(tmp_path: Path) -> None:
    """Of NVIDIA's devices those of a display class, unless a virtual machine has them."""
    devices = {
        "0000:10:00.0": ("0x10de", "0x030200", "nvidia"),
        "0000:11:00.0": ("0x10de", "0x030000", ""),
        "0000:12:00.0": ("0x10de", "0x030200", "vfio-pci"),
        "0000:13:00.0": ("0x10de", "0x068000", ""),
        "0000:14:00.0": ("0x15b3", "0x020700", ""),
    }
    for name, (vendor, kind, driver) in devices.items():
        folder = tmp_path / "bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
        if driver:
            (folder / "driver").symlink_to(f"../../../drivers/{driver}")
    assert read_gpus(tmp_path) == {"0000:10:00.0", "0000:11:00.0"}
    assert read_gpus(tmp_path / "nowhere") == frozenset()
