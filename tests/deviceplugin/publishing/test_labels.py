"""Labels of a node: those of GPU feature discovery, word for word, and those of its links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.config.model import Config
from deviceplugin.publishing.features import FeatureFile, read_hardware
from deviceplugin.publishing.labels import Hardware, labels_of, render, sanitise
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock, take_stock
from mock_nvml import MockNvml
from tests.deviceplugin.nodes import machine
from tests.mock_nvml.rig import rig
from topology.catalogue import load_machine, shipped_names

VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
KEY = re.compile(r"[a-z.]+/[a-zA-Z0-9][-A-Za-z0-9_.]{0,62}")


def stock_of(name: str, config: dict[str, Any] | None = None, **cut: list[str]) -> Stock:
    """Return what a machine has: discovered, with some GPUs cut (``g1=[...]``)."""
    with rig(load_machine(name)) as set_up:
        for gpu, profiles in cut.items():
            set_up.mock.inject("mig", gpu=int(gpu[1:]), profiles=profiles)
        found = set_up.discover()
    inventory = Inventory(found.topology, mig=found.mig, driver=found.driver)
    return take_stock(inventory, Config.model_validate(config or {}))


def labels(name: str, config: dict[str, Any] | None = None, **cut: list[str]) -> dict[str, str]:
    """Return a machine's labels."""
    return labels_of(stock_of(name, config, **cut), Hardware("DGX H100 (rev. 2)"))


def test_a_whole_machine_is_labelled_as_the_vendor_does() -> None:
    """Every label that gpu-feature-discovery has for it, with its words."""
    found = labels("hgx-h100-8x-ib")
    assert {key: value for key, value in found.items() if key.startswith("nvidia.com/")} == {
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/cuda.driver-version.minor": "95",
        "nvidia.com/cuda.driver-version.revision": "05",
        "nvidia.com/cuda.driver.major": "580",
        "nvidia.com/cuda.driver.minor": "95",
        "nvidia.com/cuda.driver.rev": "05",
        "nvidia.com/cuda.runtime-version.full": "13.0",
        "nvidia.com/cuda.runtime-version.major": "13",
        "nvidia.com/cuda.runtime-version.minor": "0",
        "nvidia.com/cuda.runtime.major": "13",
        "nvidia.com/cuda.runtime.minor": "0",
        "nvidia.com/gpu.compute.major": "9",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.family": "hopper",
        "nvidia.com/gpu.machine": "DGX-H100-rev.-2",
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true",
        "nvidia.com/mps.capable": "false",
    }


LINKS = [
    ("hgx-h100-8x-ib", "4", "8", "18", "true", "2", "4"),
    ("dgx1-v100", "2", "8", "2", "false", "2", "4"),
    ("a40-8x-bridges", "3", "2", "4", "false", None, None),
    ("l4-8x", None, None, None, None, None, None),
]


@pytest.mark.parametrize(("name", "generation", "group", "links", "switch", "nodes", "each"), LINKS)
def test_links_are_labelled_too(  # noqa: PLR0917 - a row of the table
    name: str,
    generation: str | None,
    group: str | None,
    links: str | None,
    switch: str | None,
    nodes: str | None,
    each: str | None,
) -> None:
    """Generation, greatest group, links of a pair, switch or none, and NUMA; nothing without."""
    found = labels(name)
    assert found.get("gputopo.dev/nvlink.generation") == generation
    assert found.get("gputopo.dev/nvlink.group-size") == group
    assert found.get("gputopo.dev/nvlink.links") == links
    assert found.get("gputopo.dev/nvlink.switch") == switch
    if nodes is not None:
        assert found["gputopo.dev/numa.nodes"] == nodes
        assert found["gputopo.dev/numa.gpus-per-node"] == each


def test_a_multi_node_domain_is_named_as_the_vendor_does() -> None:
    """The cluster's uuid and the clique."""
    assert re.fullmatch(
        r"[0-9a-f-]{36}\.\d+", labels("gb200-nvl72-tray-4x")["nvidia.com/gpu.clique"]
    )


def sliced(**more: object) -> dict[str, Any]:
    """Return a configuration with four slices of each GPU."""
    rule = {"name": "nvidia.com/gpu", "replicas": 4}
    return {"sharing": {"timeSlicing": {"resources": [rule], **more}}}


@pytest.mark.parametrize(
    ("config", "product"),
    [
        (sliced(), "NVIDIA-L4-SHARED"),
        (sliced(renameByDefault=True), "NVIDIA-L4"),
    ],
)
def test_a_shared_gpu_says_so_unless_its_name_does(config: dict[str, Any], product: str) -> None:
    """With its replicas and how it is shared."""
    found = labels("l4-8x", config)
    assert found["nvidia.com/gpu.product"] == product
    assert found["nvidia.com/gpu.replicas"] == "4"
    assert found["nvidia.com/gpu.sharing-strategy"] == "time-slicing"
    assert found["nvidia.com/gpu.count"] == "8"


def test_mixed_mig_labels_each_profile() -> None:
    """What an instance has; a ``+`` becomes a dot, and cut GPUs are no whole ones."""
    config = {"flags": {"migStrategy": "mixed"}}
    found = labels("dgx-a100-8x", config, g1=["3g.20gb", "1g.5gb+me"], g2=["3g.20gb"])
    assert found["nvidia.com/mig.strategy"] == "mixed"
    assert found["nvidia.com/gpu.count"] == "6"
    assert found["nvidia.com/mig-3g.20gb.count"] == "2"
    assert found["nvidia.com/mig-3g.20gb.product"] == "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    assert found["nvidia.com/mig-3g.20gb.memory"] == "19968"
    assert found["nvidia.com/mig-3g.20gb.slices.gi"] == "3"
    assert found["nvidia.com/mig-3g.20gb.engines.copy"] == "3"
    assert found["nvidia.com/mig-1g.5gb.me.count"] == "1"


def test_single_mig_stands_for_the_gpus() -> None:
    """All alike: an instance counts as a GPU; not alike: the product says that it is invalid."""
    config = {"flags": {"migStrategy": "single"}}
    every = {f"g{at}": ["3g.20gb", "3g.20gb"] for at in range(8)}
    found = labels("dgx-a100-8x", config, **every)
    assert found["nvidia.com/gpu.count"] == "16"
    assert found["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    assert found["nvidia.com/gpu.multiprocessors"] == "42"
    found = labels("dgx-a100-8x", config, **{**every, "g3": ["7g.40gb"]})
    assert found["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-40GB-MIG-INVALID"
    assert found["nvidia.com/gpu.count"] == "0"


@pytest.mark.parametrize("name", shipped_names())
def test_every_label_of_every_machine_is_one(name: str) -> None:
    """Kubernetes takes each key and value, and NFD each line."""
    found = labels(name)
    for key, value in found.items():
        assert KEY.fullmatch(key)
        assert VALUE.fullmatch(value), (key, value)
    assert render(found).splitlines() == sorted(f"{key}={found[key]}" for key in found)


@given(st.text(max_size=200))
def test_any_text_becomes_a_value(text: str) -> None:
    """Whatever a product is called."""
    assert VALUE.fullmatch(sanitise(text))


def test_nothing_is_said_before_the_first_discovery() -> None:
    """A node with labels of no GPU would be worse than one without."""
    assert labels_of(take_stock(Inventory(), Config()), Hardware()) == {}


def test_a_mixed_node_does_not_flip() -> None:
    """The most frequent model stands for it, whatever the order."""
    stock = take_stock(Inventory(machine(3)), Config())
    assert labels_of(stock, Hardware())["nvidia.com/gpu.product"] == "V100"


def test_the_file_is_written_when_it_changes(tmp_path: Path) -> None:
    """Whole, under its name, and not again for the same."""
    path = tmp_path / "gputopo"
    file = FeatureFile(path, tmp_path)
    stock = stock_of("l4-8x")
    file.put(stock)
    before = path.stat().st_ino
    assert "nvidia.com/gpu.product=NVIDIA-L4\n" in path.read_text()
    file.put(stock)
    assert path.stat().st_ino == before
    file.put(stock_of("l4-8x", sliced()))
    assert "nvidia.com/gpu.product=NVIDIA-L4-SHARED\n" in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["gputopo"]


def test_a_folder_that_is_not_there_is_a_problem_and_no_end(tmp_path: Path) -> None:
    """It is written once the folder is."""
    file = FeatureFile(tmp_path / "features.d" / "gputopo", tmp_path)
    stock = stock_of("l4-8x")
    file.put(stock)
    assert "features.d" in file.problem
    (tmp_path / "features.d").mkdir()
    file.put(stock)
    assert file.problem == ""
    assert (tmp_path / "features.d" / "gputopo").is_file()


def test_hardware_is_read_from_sysfs(tmp_path: Path) -> None:
    """The machine's name, and which GPUs have an output."""
    with rig(load_machine("l4-8x")) as set_up:
        assert isinstance(set_up.mock, MockNvml)
        topology = set_up.discover().topology
    stock = take_stock(Inventory(topology), Config())
    (tmp_path / "class/dmi/id").mkdir(parents=True)
    (tmp_path / "class/dmi/id/product_name").write_text("PowerEdge XE9680\n")
    first = tmp_path / "bus/pci/devices" / topology.gpus[0].pci
    first.mkdir(parents=True)
    (first / "class").write_text("0x030000\n")
    found = read_hardware(stock, tmp_path)
    assert found == Hardware("PowerEdge XE9680", frozenset([topology.gpus[0].uuid]))
    assert labels_of(stock, found)["nvidia.com/gpu.mode"] == "unknown"
