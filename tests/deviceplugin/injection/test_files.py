"""CDI files: what is in them, that runtimes take them, and how they come and go."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deviceplugin.injection.answer import answer
from deviceplugin.injection.compose import compose
from deviceplugin.injection.driver import DriverFiles, DriverReader, read_driver
from deviceplugin.injection.files import CdiFiles
from deviceplugin.injection.spec import CdiDevice, Edits, Node, Spec, version_of
from deviceplugin.resources.facts import NodeFacts, device_nodes, read_facts
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock, take_stock
from tests.deviceplugin.injection.rules import check, needed_version
from tests.deviceplugin.nodes import machine
from tests.deviceplugin.resources.nodes import config_of, cut

MIG = "flags: {migStrategy: mixed, plugin: {deviceListStrategy: cdi-cri}}"
DRIVER = DriverFiles(
    version="580.82.07",
    libraries=("/usr/lib64/libcuda.so.580.82.07", "/usr/lib64/libnvidia-ml.so.580.82.07"),
    links=(("/usr/lib64/libcuda.so.1", "libcuda.so.580.82.07"),),
    others=("/usr/bin/nvidia-smi",),
)


def node(text: str = MIG, facts: NodeFacts | None = None) -> Stock:
    """Return a node of three GPUs, one of them cut in two."""
    inventory = Inventory(machine(3), {}, cut(1, "1g.5gb", "2g.10gb"))
    known = facts or NodeFacts(
        control_nodes=("/dev/nvidiactl", "/dev/nvidia-uvm"), nodes=device_nodes(inventory)
    )
    return take_stock(inventory, config_of(text), known)


def written(spec: Spec) -> dict[str, Any]:
    """Return what stands in the file."""
    found: dict[str, Any] = json.loads(spec.encode())
    return found


@pytest.mark.parametrize("driver", [DriverFiles(), DRIVER], ids=["bare", "driver"])
@pytest.mark.parametrize(
    "flags",
    ["", "nvidiaDriverRoot: /run/nvidia/driver,", "nvidiaDevRoot: /host,", "migStrategy: mixed,"],
)
def test_every_file_is_taken_by_runtimes(driver: DriverFiles, flags: str) -> None:
    """Each file follows the schema and says the lowest version that its content needs."""
    text = f"flags: {{{flags} gdsEnabled: true}}\nimex: {{channelIDs: [0]}}"
    inventory = Inventory(machine(3), {}, cut(1, "1g.5gb", "2g.10gb"))
    facts = NodeFacts(
        ("/dev/nvidiactl",), device_nodes(inventory), True, {"gds": ("/dev/nvidia-fs0",)}
    )
    specs = compose(take_stock(inventory, config_of(text), facts), driver)
    assert set(specs) == {"gpu", "imex-channel", "gds"}
    for spec in specs.values():
        found = written(spec)
        check(found)
        assert tuple(map(int, found["cdiVersion"].split("."))) == needed_version(found)


def test_the_rules_refuse_what_runtimes_refuse() -> None:
    """The check that the others rest on fails for unknown keys, twice the name, a low version."""
    good = written(compose(node(), DRIVER)["gpu"])
    for spoil in (
        {**good, "extra": 1},
        {**good, "devices": []},
        {**good, "kind": "gpu"},
        {**good, "devices": good["devices"] * 2},
        {**good, "cdiVersion": "0.3.0"},
    ):
        with pytest.raises((jsonschema.ValidationError, AssertionError)):
            check(spoil)


def test_the_version_is_the_lowest_that_is_enough() -> None:
    """Another host path and a leading digit need 0.5.0, a dotted class 0.6.0, nothing else any."""

    def spec(kind: str, name: str, host: str = "") -> Spec:
        return Spec(kind, (CdiDevice(name, Edits(device_nodes=(Node("/dev/x", host),))),))

    assert version_of(spec("v.dev/gpu", "GPU-1")) == "0.3.0"
    assert version_of(spec("v.dev/gpu", "0")) == "0.5.0"
    assert version_of(spec("v.dev/gpu", "GPU-1", "/host/dev/x")) == "0.5.0"
    assert version_of(spec("v.dev/a.b", "GPU-1")) == "0.6.0"


def test_every_name_that_allocate_gives_is_in_a_file() -> None:
    """Whatever the strategy of names, each qualified name of an answer is a device of a file."""
    for names in ("uuid", "index"):
        text = (
            "flags: {migStrategy: mixed, gdsEnabled: true, plugin: {deviceListStrategy: cdi-cri, "
            f"deviceIDStrategy: {names}}}}}\nimex: {{channelIDs: [0]}}"
        )
        inventory = Inventory(machine(3), {}, cut(1, "1g.5gb", "2g.10gb"))
        facts = NodeFacts((), device_nodes(inventory), True, {"gds": ("/dev/nvidia-fs0",)})
        one = take_stock(inventory, config_of(text), facts)
        known = {
            f"{spec.kind}={device.name}"
            for spec in compose(one, DRIVER).values()
            for device in spec.devices
        }
        for resource in one.division.resources.values():
            told = answer(resource.devices, resource, one.config, one.facts)
            assert set(told.cdi_devices) <= known
            assert told.cdi_devices


def test_what_is_not_offered_has_its_names_too() -> None:
    """A container that is started again is given its old names, though its GPU was excluded."""
    for text in ("gpus: {exclude: [0]}", "flags: {migStrategy: single}", ""):
        names = {device.name for device in compose(node(text), DRIVER)["gpu"].devices}
        assert names >= {"g0", "0", "g1", "1", "m1-0", "1:0"}


def test_an_instance_brings_its_gpu_and_its_capabilities() -> None:
    """The device nodes of each GPU and instance are its own, under the host's root."""
    text = MIG.replace("migStrategy", "nvidiaDevRoot: /host, migStrategy")
    devices = {
        device["name"]: [
            (one["path"], one["hostPath"]) for one in device["containerEdits"]["deviceNodes"]
        ]
        for device in written(compose(node(text), DriverFiles())["gpu"])["devices"]
    }
    assert devices["g0"] == devices["0"] == [("/dev/nvidia0", "/host/dev/nvidia0")]
    assert [path for path, _ in devices["m1-1"]] == [
        "/dev/nvidia1",
        "/dev/nvidia-caps/nvidia-cap21",
        "/dev/nvidia-caps/nvidia-cap201",
    ]
    assert devices["1:1"] == devices["m1-1"]


def test_the_drivers_files_come_from_its_root() -> None:
    """Libraries and tools are mounted from the host's driver root, read-only."""
    text = MIG.replace("migStrategy", "nvidiaDriverRoot: /run/nvidia/driver, migStrategy")
    edits = written(compose(node(text), DRIVER)["gpu"])["containerEdits"]
    assert edits["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert edits["mounts"][0] == {
        "hostPath": "/run/nvidia/driver/usr/lib64/libcuda.so.580.82.07",
        "containerPath": "/usr/lib64/libcuda.so.580.82.07",
        "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
    }
    assert [hook["args"] for hook in edits["hooks"]] == [
        [
            "nvidia-ctk",
            "hook",
            "create-symlinks",
            "--link",
            "libcuda.so.580.82.07::/usr/lib64/libcuda.so.1",
        ],
        ["nvidia-ctk", "hook", "update-ldcache", "--folder", "/usr/lib64"],
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", ["create-symlinks", "update-ldcache"]),
        ("cdiDisableHooks: all,", []),
        ("cdiDisableHooks: [update-ldcache],", ["create-symlinks"]),
        ("nvidiaCTKPath: /usr/bin/nvidia-cdi-hook,", ["create-symlinks", "update-ldcache"]),
    ],
)
def test_hooks_can_be_left_out(flags: str, expected: list[str]) -> None:
    """Each hook by its name or all of them; the newer program takes them without a word before."""
    edits = written(compose(node(f"flags: {{plugin: {{{flags}}}}}"), DRIVER)["gpu"])[
        "containerEdits"
    ]
    names = [
        hook["args"][2] if hook["args"][1] == "hook" else hook["args"][1]
        for hook in edits.get("hooks", [])
    ]
    assert names == expected


def test_a_mode_without_a_device_has_no_file(tmp_path: Path) -> None:
    """GDS is asked for and the host has none: neither a file nor a name in the answer."""
    config = config_of("flags: {gdsEnabled: true, gdrcopyEnabled: true, mofedEnabled: true}")
    (tmp_path / "dev" / "infiniband").mkdir(parents=True)
    for name in ("gdrdrv", "nvidiactl", "infiniband/uverbs0", "infiniband/uverbs1"):
        (tmp_path / "dev" / name).touch()
    facts = read_facts(tmp_path, tmp_path / "mps", Inventory(machine(1)), config)
    assert facts.control_nodes == ("/dev/nvidiactl",)
    assert facts.mode_nodes == {
        "mofed": ("/dev/infiniband/uverbs0", "/dev/infiniband/uverbs1"),
        "gdrcopy": ("/dev/gdrdrv",),
    }
    assert not facts.has_channel
    assert set(compose(node("", facts), DriverFiles())) == {"gpu", "mofed", "gdrcopy"}


def test_the_driver_is_found_where_distributions_put_it(tmp_path: Path) -> None:
    """Files that bear the version of NVML's library, links to them, tools, firmware."""
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in (
        "libnvidia-ml.so.580.82.07",
        "libcuda.so.580.82.07",
        "libcuda.so.535.1",
        "libc.so.6",
    ):
        (libraries / name).touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.580.82.07")
    (libraries / "libc.so").symlink_to("libc.so.6")
    for path in ("usr/bin/nvidia-smi", "lib/firmware/nvidia/580.82.07/gsp_ga10x.bin"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert read_driver(tmp_path) == DriverFiles(
        version="580.82.07",
        libraries=(
            "/usr/lib/x86_64-linux-gnu/libcuda.so.580.82.07",
            "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.82.07",
        ),
        links=(("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "libcuda.so.580.82.07"),),
        others=("/usr/bin/nvidia-smi", "/lib/firmware/nvidia/580.82.07/gsp_ga10x.bin"),
    )
    assert read_driver(tmp_path / "nowhere") == DriverFiles()


def test_a_driver_that_is_exchanged_is_read_again(tmp_path: Path) -> None:
    """An update puts other files into the folders; until then nothing is read twice."""
    folder, reader = tmp_path / "usr/lib64", DriverReader()
    folder.mkdir(parents=True)
    assert reader.read(tmp_path) == DriverFiles()
    for version in ("1.2", "1.3"):
        for old in folder.iterdir():
            old.unlink()
        (folder / f"libnvidia-ml.so.{version}").touch()
        os.utime(folder, ns=(0, int(version[-1])))
        found = reader.read(tmp_path)
        assert found.version == version
        assert reader.read(tmp_path) is found


def test_files_are_put_and_taken_away(tmp_path: Path) -> None:
    """What is put is there, what is no longer put is gone, and nothing is left at the end."""
    files = CdiFiles(tmp_path / "cdi")
    specs = compose(node(), DRIVER)
    files.put({**specs, "gds": specs["gpu"]})
    assert {path.name for path in (tmp_path / "cdi").iterdir()} == {
        "k8s.device-plugin.nvidia.com-gpu.json",
        "k8s.device-plugin.nvidia.com-gds.json",
    }
    files.put(specs)
    assert [path.name for path in (tmp_path / "cdi").iterdir()] == [
        "k8s.device-plugin.nvidia.com-gpu.json"
    ]
    assert files.path("gpu").stat().st_mode & 0o777 == 0o644
    files.clear()
    assert list((tmp_path / "cdi").iterdir()) == []


def test_a_file_is_written_only_when_it_differs(tmp_path: Path) -> None:
    """The same content leaves the file alone; one that was deleted or spoilt comes again."""
    files = CdiFiles(tmp_path)
    specs = compose(node(), DRIVER)
    files.put(specs)
    before = files.path("gpu").stat().st_ino
    files.put(specs)
    assert files.path("gpu").stat().st_ino == before
    files.path("gpu").unlink()
    files.put(specs)
    check(json.loads(files.path("gpu").read_text()))


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """While files change, whoever reads the folder as runtimes do sees whole ones only."""
    files, stop = CdiFiles(tmp_path), threading.Event()
    versions = [compose(node(), driver) for driver in (DriverFiles(), DRIVER)]
    files.put(versions[0])
    broken: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for path in tmp_path.iterdir():
                if path.suffix == ".json":
                    try:
                        json.loads(path.read_text())
                    except ValueError:
                        broken.append(str(path))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        files.put(versions[turn % 2])
    stop.set()
    reader.join()
    assert broken == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Where this plugin has written nothing it removes nothing: NVIDIA's has the same names."""
    other = tmp_path / "k8s.device-plugin.nvidia.com-gpu.json"
    other.write_text("{}")
    CdiFiles(tmp_path).clear()
    assert other.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The problem is kept for the readiness probe, and gone once it works."""
    (tmp_path / "cdi").touch()
    files = CdiFiles(tmp_path / "cdi")
    files.put(compose(node(), DRIVER))
    assert str(tmp_path) in files.problem
    (tmp_path / "cdi").unlink()
    files.put(compose(node(), DRIVER))
    assert files.problem == ""
