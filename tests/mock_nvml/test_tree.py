"""The PCI tree that a machine gets: hidden levels, NUMA nodes, addresses, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from mock_nvml import write_sysfs
from mock_nvml.layout import lay_out
from mock_nvml.products import find_product
from mock_nvml.tree import grow_tree
from tests.mock_nvml.strategies import machines
from topology.catalogue import load_machine, shipped_names
from topology.links import Level
from topology.machine_yaml import parse_machine
from topology.machines import Machine
from topology.pci import pci_order

NODES = [
    ("dgx1-v100", (0, 0, 0, 0, 1, 1, 1, 1)),
    ("oci-8x-a100-nps4", (3, 3, 1, 1, 7, 7, 5, 5)),
    # GPU memory stands in the lists: the lowest number is the CPU's node.
    ("gb200-nvl72-tray-4x", (0, 0, 1, 1)),
    # SYS inside one node: the firmware names none to the kernel.
    ("rtx4090-8x-all-sys", (-1,) * 8),
    # The source told no node, but NODE cells need one.
    ("a40-8x-bridges", (0, 0, 0, 0, 1, 1, 1, 1)),
    # A virtual machine with one host bridge goes without.
    ("v100-8x-vm-phb", (-1,) * 8),
]


@pytest.mark.parametrize(("name", "nodes"), NODES)
def test_numa_nodes_fit_the_levels(name: str, nodes: tuple[int, ...]) -> None:
    """Each group gets the node that its GPUs name, where that holds the levels together."""
    assert grow_tree(load_machine(name)).numa_nodes[: len(nodes)] == nodes


def test_hidden_levels_are_completed_by_what_is_told() -> None:
    """GPUs of one node are NODE to each other, those that share a NIC's switch are PXB."""
    levels = grow_tree(load_machine("hgx-h100-8x-ib")).levels
    assert levels[0][:5] == (Level.SELF, Level.PXB, Level.NODE, Level.NODE, Level.SYS)


@given(machine=machines())
@settings(max_examples=60, deadline=None, database=None)
def test_levels_nest(machine: Machine) -> None:
    """Of three devices the two farthest pairs are equally far, as in every tree."""
    levels = grow_tree(machine).levels
    count = len(levels)
    for a in range(count):
        for b in range(a):
            for c in range(b):
                far = sorted((levels[a][b], levels[b][c], levels[a][c]))
                assert far[1] is far[2]


@given(machine=machines())
@settings(max_examples=60, deadline=None, database=None)
def test_no_two_devices_share_an_address(machine: Machine) -> None:
    """Given addresses are kept; made-up ones ascend with the index where none is given."""
    layout = lay_out(machine)
    places = (*layout.gpus, *layout.nics, *layout.switches)
    ends = [place.pci for place in places]
    bridges = {bridge for place in places for bridge in place.bridges}
    assert len(set(ends)) == len(ends)
    assert bridges.isdisjoint(ends)
    for told, place in zip(machine.gpus, layout.gpus, strict=True):
        assert told.pci in (None, place.pci)
    order = [pci_order(place.pci) for place in layout.gpus]
    if not any(gpu.pci for gpu in machine.gpus):
        assert order == sorted(order)
    nics = [pci_order(place.pci) for place in layout.nics]
    assert nics == sorted(nics)


def test_sysfs_is_made_of_real_relative_links(tmp_path: Path) -> None:
    """The tree can be moved; classes tell GPUs, NICs, bridges and NVSwitches apart."""
    machine = load_machine("hgx-h100-8x-ib")
    write_sysfs(machine, tmp_path / "here", seed="a")
    (tmp_path / "here").rename(tmp_path / "there")
    devices = tmp_path / "there" / "bus" / "pci" / "devices"
    classes = [(entry / "class").read_text(encoding="ascii").strip() for entry in devices.iterdir()]
    assert (classes.count("0x030200"), classes.count("0x020700")) == (8, 13)
    assert classes.count("0x068000") == 4
    nic = tmp_path / "there" / "class" / "infiniband" / "mlx5_ib0" / "device"
    assert nic.resolve(strict=True).name in {entry.name for entry in devices.iterdir()}
    node = tmp_path / "there" / "devices" / "system" / "node" / "node1" / "cpulist"
    assert node.read_text(encoding="ascii") == "56-111,168-223\n"


def test_a_tree_can_be_written_again(tmp_path: Path) -> None:
    """A process that starts anew on its folder finds no fault with it."""
    machine = load_machine("dgx1-v100")
    write_sysfs(machine, tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    write_sysfs(machine, tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_the_switches_of_a_rack_are_not_in_the_tray(tmp_path: Path) -> None:
    """Nor are they there when a hypervisor hides them."""
    write_sysfs(load_machine("gb200-nvl72-tray-4x"), tmp_path / "tray")
    write_sysfs(load_machine("dgx-a100-8x"), tmp_path / "guest", hide_switches=True)
    for root in ("tray", "guest"):
        for entry in (tmp_path / root / "bus" / "pci" / "devices").iterdir():
            assert (entry / "class").read_text(encoding="ascii").strip() != "0x068000"


def big(gpus: int, nics: int) -> dict[str, Any]:
    """Return a flat description of many devices."""
    return {
        "name": "big",
        "model": "big",
        "gpus": [{"index": at, "numa": None, "cpus": None} for at in range(gpus)],
        "links": [["X" if a == b else "SYS" for b in range(gpus)] for a in range(gpus)],
        "nics": [{"name": f"n{at}", "gpus": ["SYS"] * gpus} for at in range(nics)],
        "nvlink": {"links_per_gpu": 0, "nvswitch": False},
    }


@pytest.mark.parametrize(("gpus", "nics"), [(64, 0), (64, 64), (2, 200)])
def test_there_are_addresses_for_many_devices(gpus: int, nics: int) -> None:
    """When a domain's buses run out the next domain has more."""
    layout = lay_out(parse_machine(yaml.safe_dump(big(gpus, nics)), "big"))
    assert len({place.pci for place in (*layout.gpus, *layout.nics)}) == gpus + nics
    assert len({place.root for place in (*layout.gpus, *layout.nics)}) == gpus + nics


def test_products_are_found_by_whole_words() -> None:
    """Longer names go before shorter ones; what is unknown is generic."""
    names = {
        "8x L40S": "NVIDIA L40S",
        "8x L4": "NVIDIA L4",
        "4x A100 PCIe, NVLink bridges": "NVIDIA A100 80GB PCIe",
        "HGX A100 8x": "NVIDIA A100-SXM4-40GB",
        "8x H20-3e": "NVIDIA H20-3e",
        "GB200 NVL72": "NVIDIA GB200",
        "8 GPUs, one switch": "NVIDIA Graphics Device",
    }
    assert {model: find_product(model).name for model in names} == names
    generic = [name for name in shipped_names() if not _known(name)]
    assert generic == ["pcie-8x-two-switches-nic-one-socket", "vm-5x-phb"]


def _known(name: str) -> bool:
    return find_product(load_machine(name).model).name != "NVIDIA Graphics Device"
