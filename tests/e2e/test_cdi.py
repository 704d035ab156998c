"""CDI files as container runtimes read them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deviceplugin.injection.answer import answer
from deviceplugin.injection.compose import compose
from deviceplugin.injection.driver import DriverFiles
from deviceplugin.injection.files import CdiFiles
from deviceplugin.resources.facts import NodeFacts, device_nodes
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock, take_stock
from tests.deviceplugin.nodes import machine
from tests.deviceplugin.resources.nodes import config_of, cut
from tests.e2e.cdi import binary

DRIVER = DriverFiles(
    version="580.1",
    libraries=("/usr/lib64/libcuda.so.580.1",),
    links=(("/usr/lib64/libcuda.so.1", "libcuda.so.580.1"),),
)
NODES = {
    path
    for paths in device_nodes(Inventory(machine(3), {}, cut(1, "1g.5gb", "2g.10gb"))).values()
    for path in paths
} | {"/dev/nvidiactl", "/dev/nvidia-fs0", "/dev/nvidia-caps-imex-channels/channel0"}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a root below which all device nodes are: /dev/null by other names."""
    for path in NODES:
        node = tmp_path / path[1:]
        node.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return tmp_path


def node(host: Path, names: str) -> Stock:
    """Return a node of three GPUs, one of them cut, under CDI with everything switched on."""
    inventory = Inventory(machine(3), {}, cut(1, "1g.5gb", "2g.10gb"))
    facts = NodeFacts(
        ("/dev/nvidiactl",), device_nodes(inventory), True, {"gds": ("/dev/nvidia-fs0",)}
    )
    text = (
        f"flags: {{migStrategy: mixed, nvidiaDevRoot: {host}, gdsEnabled: true, "
        f"plugin: {{deviceListStrategy: cdi-cri, deviceIDStrategy: {names}}}}}\n"
        "imex: {channelIDs: [0]}"
    )
    return take_stock(inventory, config_of(text), facts)


def inject(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what a runtime would give to a container with these devices."""
    done = subprocess.run(
        [str(binary()), str(folder), *names], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("names", ["uuid", "index"])
def test_a_runtime_injects_what_allocate_names(host: Path, names: str) -> None:
    """No file is refused, and each answer brings the nodes of its devices and no others."""
    one = node(host, names)
    folder = host / "cdi"
    CdiFiles(folder).put(compose(one, DRIVER))
    for resource in one.division.resources.values():
        for device in resource.devices:
            told = answer([device], resource, one.config, one.facts)
            found = inject(folder, told.cdi_devices)
            assert found["errors"] == {}
            assert set(found["nodes"]) == {
                "/dev/nvidiactl",
                "/dev/nvidia-fs0",
                "/dev/nvidia-caps-imex-channels/channel0",
                *one.facts.nodes[device.uuid],
            }
            assert found["mounts"] == ["/usr/lib64/libcuda.so.580.1"]
            assert [hook[2] for hook in found["hooks"]] == ["create-symlinks", "update-ldcache"]
            assert found["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]


def test_the_version_is_the_lowest_that_runtimes_take(host: Path) -> None:
    """A file that says a version before the one that we write is refused."""
    folder = host / "cdi"
    files = CdiFiles(folder)
    files.put(compose(node(host, "index"), DRIVER))
    spec = json.loads(files.path("gpu").read_text())
    files.path("gpu").write_text(json.dumps({**spec, "cdiVersion": "0.3.0"}))
    (problem,) = inject(folder, ())["errors"].values()
    assert f"at least v{spec['cdiVersion']}" in problem
