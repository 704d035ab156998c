"""Discovery when NVML or sysfs says less than it should."""

from __future__ import annotations

import shutil

import pytest

from deviceplugin.discovery.topology import discover
from deviceplugin.errors import DiscoveryError
from deviceplugin.nvml.library import Code, Device
from tests.mock_nvml.rig import differences, rig
from topology.catalogue import load_machine
from topology.links import Level

OLD = frozenset(
    (
        "nvmlDeviceGetMemoryAffinity",
        "nvmlDeviceGetP2PStatus",
        "nvmlDeviceGetGpuFabricInfo",
        "nvmlDeviceGetCpuAffinity",
        "nvmlDeviceGetMaxPcieLinkGeneration",
    )
)


@pytest.mark.parametrize("name", ["dgx1-v100", "hgx-h100-8x-ib", "azure-nc96ads-a100-v4-4x"])
def test_an_old_driver_is_enough(name: str) -> None:
    """NUMA and CPUs come from sysfs; a far end that calls itself a switch is believed."""
    machine = load_machine(name)
    with rig(machine, missing=OLD) as set_up:
        found = set_up.discover()
    assert found.problems == ()
    assert differences(machine, found.topology) == []
    assert {gpu.pcie_gen for gpu in found.topology.gpus} == {0}


def test_an_old_driver_in_a_virtual_machine_is_not_guessed_about() -> None:
    """With the switch hidden and no P2P status there is no sign of NVLink between two GPUs."""
    machine = load_machine("hgx-h100-8x-ib")
    with rig(machine, missing=OLD, hide_switches=True) as set_up:
        topology = set_up.discover().topology
    assert set(topology.switch) == {-1}
    assert topology.nvlinks[0][1] == 0


def test_levels_come_from_sysfs_when_nvml_does_not_tell() -> None:
    """The tree of paths gives the same levels."""
    machine = load_machine("dgx1-v100")
    with rig(machine, missing=frozenset(("nvmlDeviceGetTopologyCommonAncestor",))) as set_up:
        assert differences(machine, set_up.discover().topology) == []


def test_without_sysfs_nvml_alone_is_used() -> None:
    """Levels, NUMA and CPUs are there; NICs are not."""
    machine = load_machine("dgx1-v100")
    with rig(machine) as set_up:
        shutil.rmtree(set_up.root / "bus")
        shutil.rmtree(set_up.root / "class")
        topology = set_up.discover().topology
    assert topology.nics == ()
    assert [gpu.numa_node for gpu in topology.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [gpu.cpus for gpu in topology.gpus] == [gpu.cpus for gpu in machine.gpus]
    assert topology.pcie[0] == (Level.SELF, Level.PIX, *[Level.PHB] * 2, *[Level.SYS] * 4)


def test_with_neither_a_level_is_the_farthest() -> None:
    """Unknown is never taken for near."""
    machine = load_machine("l4-8x")
    with rig(machine, missing=frozenset(("nvmlDeviceGetTopologyCommonAncestor",))) as set_up:
        shutil.rmtree(set_up.root / "bus")
        topology = set_up.discover().topology
    assert {level for row in topology.pcie for level in row} == {Level.SELF, Level.SYS}


def test_minor_features_may_fail() -> None:
    """A GPU without name, memory, minor or links is still a GPU."""
    with rig(load_machine("dgx1-v100")) as set_up:
        for function in (
            "nvmlDeviceGetName",
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetMinorNumber",
            "nvmlDeviceGetNvLinkState",
            "nvmlDeviceGetCudaComputeCapability",
        ):
            set_up.mock.inject("call", function=function, code="UNKNOWN", gpu=3)
        found = set_up.discover()
    gpu = found.topology.gpus[3]
    assert found.problems == ()
    assert (gpu.model, gpu.memory_mib, gpu.minor, gpu.compute) == ("", 0, 3, "")
    assert set(found.topology.nvlinks[3]) == {0}


@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"],
)
def test_a_gpu_without_identity_is_a_problem(function: str) -> None:
    """It is reported with what NVML said, and its neighbours are there."""
    with rig(load_machine("l4-8x")) as set_up:
        set_up.mock.inject("call", function=function, code="NO_PERMISSION", times=1)
        found = set_up.discover()
    assert len(found.topology.gpus) == 7
    (problem,) = found.problems
    assert (problem.index, problem.code) == (0, Code.NO_PERMISSION)
    assert "NO_PERMISSION (4)" in problem.reason


def test_a_gpu_lost_midway_is_a_problem_of_its_own() -> None:
    """Also when it answers who it is, and falls silent after that."""
    with rig(load_machine("l4-8x")) as set_up:
        set_up.mock.inject("call", function="nvmlDeviceGetMemoryInfo", code="GPU_IS_LOST", gpu=2)
        found = set_up.discover()
    assert [(problem.index, problem.code) for problem in found.problems] == [(2, Code.GPU_IS_LOST)]
    assert found.problems[0].uuid.startswith("GPU-")


def test_an_nvml_that_does_not_count_is_a_discovery_error() -> None:
    """There is nothing to work with, and the error says why."""
    with rig(load_machine("l4-8x")) as set_up:
        set_up.mock.inject("call", function="nvmlDeviceGetCount_v2", code="UNKNOWN")
        with pytest.raises(DiscoveryError, match="UNKNOWN"):
            set_up.discover()


def test_all_gpus_lost_is_an_empty_topology() -> None:
    """The node is still described: no GPU, all problems."""
    with rig(load_machine("rtx3090-2x-bridge")) as set_up:
        for gpu in (0, 1):
            set_up.mock.inject("lost", gpu=gpu)
        found = discover(set_up.nvml, set_up.root)
    assert found.topology.gpus == ()
    assert [problem.index for problem in found.problems] == [0, 1]


def test_a_driver_that_goes_away_in_the_middle_is_no_topology(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pairs that could not be asked any more would look as if they had no link."""
    with rig(load_machine("hgx-h100-8x-ib")) as set_up:
        ask = set_up.nvml.nvlink_access

        def reloading(first: Device, second: Device) -> bool:
            set_up.mock.inject("driver")
            return ask(first, second)

        monkeypatch.setattr(set_up.nvml, "nvlink_access", reloading)
        with pytest.raises(DiscoveryError, match="NVML died during the discovery"):
            set_up.discover()
