"""MIG as the plugin reads it: devices with all that tells them apart, and their device nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.discovery.mig_caps import read_cap_minor
from deviceplugin.discovery.topology import discover
from deviceplugin.nvml.interface import MigEngines
from deviceplugin.nvml.library import open_nvml
from mock_nvml import MockNvml, write_proc
from topology.catalogue import load_machine


def test_discovery_finds_mig_devices_with_their_nodes(tmp_path: Path) -> None:
    """By their GPU, in index order; a GPU in MIG mode that is not cut has none, others nothing."""
    machine = load_machine("dgx-a100-8x")
    write_proc(machine, tmp_path)
    with MockNvml(machine, seed="n1") as mock, open_nvml() as nvml:
        mock.inject("mig", gpu=1, profiles=["3g.20gb", "1g.5gb+me"])
        mock.inject("mig", gpu=2, profiles=[])
        found = discover(nvml, tmp_path, tmp_path)
        uuid = {gpu.index: gpu.uuid for gpu in found.topology.gpus}
        assert found.mig.keys() == {uuid[1], uuid[2]}
        assert found.mig[uuid[2]] == ()
        first, second = found.mig[uuid[1]]
    assert (first.index, first.profile, first.gpu_instance) == (0, "3g.20gb", 2)
    assert (first.gpu_minor, first.compute_minor) == (3 + 135 + 2 * 9, 3 + 135 + 2 * 9 + 1)
    assert (first.gpu_slices, first.compute_slices, first.memory_mib) == (3, 3, 19968)
    assert first.engines == MigEngines(copy=3, decoder=2)
    assert (second.index, second.profile) == (1, "1g.5gb+me")
    assert first.uuid != second.uuid


def test_a_driver_without_mig_has_no_mig_devices(tmp_path: Path) -> None:
    """An old library lacks the functions; the GPUs are whole ones."""
    missing = frozenset(("nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount"))
    with MockNvml(load_machine("dgx-a100-8x"), missing=missing), open_nvml() as nvml:
        assert discover(nvml, tmp_path).mig == {}
        assert nvml.mig_devices(nvml.device(0)) == ()


def test_a_device_that_is_destroyed_meanwhile_is_left_out() -> None:
    """Its handle is void between two questions about it."""
    with MockNvml(load_machine("dgx-a100-8x")) as mock, open_nvml() as nvml:
        mock.inject("mig", gpu=0, profiles=["3g.20gb", "3g.20gb"])
        mock.inject("call", function="nvmlDeviceGetAttributes_v2", code="INVALID_ARGUMENT", times=1)
        assert [one.index for one in nvml.mig_devices(nvml.device(0))] == [1]


ACCESS = "DeviceFileMinor: 21\nDeviceFileMode: 256\nDeviceFileModify: 1\n"


@pytest.mark.parametrize(
    ("gpu_instance", "compute_instance", "minor"), [(1, None, 21), (1, 0, 22), (2, None, None)]
)
def test_the_instances_own_file_speaks_first(
    tmp_path: Path, gpu_instance: int, compute_instance: int | None, minor: int | None
) -> None:
    """Then the driver's table; None where neither tells."""
    folder = tmp_path / "driver/nvidia/capabilities/gpu0/mig/gi1"
    folder.mkdir(parents=True)
    (folder / "access").write_text(ACCESS)
    table = tmp_path / "driver/nvidia-caps/mig-minors"
    table.parent.mkdir()
    table.write_text("config 1\ngpu0/gi1/access 99\ngpu0/gi1/ci0/access 22\nbroken line here\n")
    assert read_cap_minor(tmp_path, 0, gpu_instance, compute_instance) == minor
