"""What Allocate tells the container runtime, by every strategy."""

from __future__ import annotations

import itertools

import pytest

from deviceplugin.admission.allocation import check_devices
from deviceplugin.injection.answer import ContainerAnswer, Mount, answer
from deviceplugin.resources.facts import CONTROL_NODES, NodeFacts, device_nodes
from deviceplugin.resources.stock import MAIN
from tests.deviceplugin.resources.nodes import cut, stock

MODES = {"gds": ("/dev/nvidia-fs0",), "mofed": ("/dev/infiniband/uverbs0",)}
DIRECTORY = "/var/run/nvidia-container-devices"
GPU = "k8s.device-plugin.nvidia.com/gpu="


def told(
    strategies: str,
    *ids: str,
    more: str = "",
    plugin: str = "",
    facts: NodeFacts | None = None,
    rest: str = "",
    resource: str = MAIN,
) -> ContainerAnswer:
    """Return the answer for these ids on a node of eight GPUs, the first two of which are cut."""
    text = f"flags: {{{more} plugin: {{{plugin} deviceListStrategy: [{strategies}]}}}}\n{rest}"
    node = stock(text, 8, cut(0, "1g.5gb", "1g.5gb") | cut(1, "1g.5gb"))
    known = facts or NodeFacts(nodes=device_nodes(node.inventory))
    offered = node.resource(resource)
    return answer(check_devices(ids, offered, {}), offered, node.config, known)


def test_one_id_by_environment() -> None:
    """One id under envvar sets exactly one variable to it."""
    assert told("envvar", "g3") == ContainerAnswer(envs={"NVIDIA_VISIBLE_DEVICES": "g3"})


def test_whole_gpus_are_named_in_index_order() -> None:
    """Kubelet asks in the order of a random set: the answer is the same each time."""
    answers = {
        told("envvar", *order).envs["NVIDIA_VISIBLE_DEVICES"]
        for order in itertools.permutations(("g5", "g2", "g7"))
    }
    assert answers == {"g2,g5,g7"}
    assert told("envvar", "g5", "g1", "g5").envs["NVIDIA_VISIBLE_DEVICES"] == "g1,g5"


def test_replicas_of_one_gpu_collapse_in_first_seen_order() -> None:
    """A GPU is named once, where it was first asked for."""
    sharing = "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4}]}}"
    found = told("envvar", "g5::1", "g1::0", "g5::3", "g1::0", rest=sharing)
    assert found.envs == {"NVIDIA_VISIBLE_DEVICES": "g5,g1"}


def test_indexes_are_ascending() -> None:
    """Under the index strategy GPUs are named by number, instances by GPU and number."""
    assert told("envvar", "g5", "g2", plugin="deviceIDStrategy: index,").envs == {
        "NVIDIA_VISIBLE_DEVICES": "2,5"
    }
    mig = told(
        "envvar",
        "m1-0",
        "m0-1",
        more="migStrategy: mixed,",
        plugin="deviceIDStrategy: index,",
        resource="nvidia.com/mig-1g.5gb",
    )
    assert mig.envs == {"NVIDIA_VISIBLE_DEVICES": "0:1,1:0"}


def test_volume_mounts_name_devices_by_files() -> None:
    """The variable holds a fixed folder, in which each id is a mount of /dev/null."""
    assert told("volume-mounts", "g3", "g4") == ContainerAnswer(
        envs={"NVIDIA_VISIBLE_DEVICES": DIRECTORY},
        mounts=(Mount(f"{DIRECTORY}/g3", "/dev/null"), Mount(f"{DIRECTORY}/g4", "/dev/null")),
    )


def test_volume_mounts_take_the_variable_over() -> None:
    """With both strategies the folder stands in the variable."""
    assert told("envvar, volume-mounts", "g3").envs == {"NVIDIA_VISIBLE_DEVICES": DIRECTORY}


def test_annotations_join_qualified_names_under_a_prefix() -> None:
    """One annotation names all devices; a custom prefix replaces only the prefix."""
    (item,) = told("cdi-annotations", "g3", "g4").annotations.items()
    key, value = item
    assert key.startswith("cdi.k8s.io/nvidia-device-plugin_")
    assert value == f"{GPU}g3,{GPU}g4"
    (other,) = told(
        "cdi-annotations", "g3", "g4", plugin="cdiAnnotationPrefix: x.dev/,"
    ).annotations
    assert other == "x.dev/" + key.removeprefix("cdi.k8s.io/")


def test_the_same_devices_have_the_same_annotation() -> None:
    """The key follows from the devices, so that one question has one answer."""
    first, again = (told("cdi-annotations", "g3").annotations for _ in range(2))
    assert first == again != told("cdi-annotations", "g4").annotations


@pytest.mark.parametrize("strategy", ["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"])
def test_no_devices_no_answer(strategy: str) -> None:
    """An empty list is answered by nothing at all."""
    assert told(strategy, more="gdsEnabled: true,") == ContainerAnswer()


def test_cri_gets_qualified_names() -> None:
    """Under cdi-cri the names stand in the field of their own."""
    assert told("cdi-cri", "g3", "g4") == ContainerAnswer(cdi_devices=(f"{GPU}g3", f"{GPU}g4"))


def test_modes_and_channel_follow_the_gpus() -> None:
    """GPUs first, then the IMEX channel, then what is injected for every GPU."""
    facts = NodeFacts(has_channel=True, mode_nodes=MODES)
    found = told("cdi-cri", "g3", facts=facts, rest="imex: {channelIDs: [0]}")
    assert found.cdi_devices == (
        f"{GPU}g3",
        "k8s.device-plugin.nvidia.com/imex-channel=0",
        "k8s.device-plugin.nvidia.com/gds=all",
        "k8s.device-plugin.nvidia.com/mofed=all",
    )


def test_with_cdi_alone_nothing_else_appears() -> None:
    """No variable, no mount, no device node: the runtime would add everything twice."""
    facts = NodeFacts(control_nodes=CONTROL_NODES, has_channel=True)
    found = told(
        "cdi-cri, cdi-annotations",
        "g3",
        more="gdsEnabled: true, gdrcopyEnabled: true, mofedEnabled: true,",
        plugin="passDeviceSpecs: true,",
        facts=facts,
    )
    assert (found.envs, found.mounts, found.devices) == ({}, (), ())
    assert found.cdi_devices
    assert found.annotations


def test_modes_are_variables_without_cdi() -> None:
    """Each mode that is on is a variable of its own."""
    found = told("envvar", "g3", more="gdsEnabled: true, gdrcopyEnabled: true, mofedEnabled: true,")
    assert found.envs == {
        "NVIDIA_VISIBLE_DEVICES": "g3",
        "NVIDIA_GDS": "enabled",
        "NVIDIA_GDRCOPY": "enabled",
        "NVIDIA_MOFED": "enabled",
    }


def test_the_channel_is_a_variable_and_a_mount() -> None:
    """A channel that the host has is told in each strategy's way; one that it has not, in none."""
    here, rest = NodeFacts(has_channel=True), "imex: {channelIDs: [0]}"
    assert told("envvar", "g3", facts=here, rest=rest).envs["NVIDIA_IMEX_CHANNELS"] == "0"
    mounts = told("volume-mounts", "g3", facts=here, rest=rest).mounts
    assert mounts[-1] == Mount(f"{DIRECTORY}/imex/0", "/dev/null")
    assert "NVIDIA_IMEX_CHANNELS" not in told("envvar", "g3", rest=rest).envs


def test_device_nodes_are_passed_if_they_exist() -> None:
    """Control nodes that exist, then the GPU's own, under the host's root."""
    node = stock("", 8)
    facts = NodeFacts(
        control_nodes=("/dev/nvidiactl", "/dev/nvidia-uvm"), nodes=device_nodes(node.inventory)
    )
    found = told(
        "envvar", "g3", more="nvidiaDevRoot: /host/,", plugin="passDeviceSpecs: true,", facts=facts
    )
    assert [(one.container_path, one.host_path) for one in found.devices] == [
        ("/dev/nvidiactl", "/host/dev/nvidiactl"),
        ("/dev/nvidia-uvm", "/host/dev/nvidia-uvm"),
        ("/dev/nvidia3", "/host/dev/nvidia3"),
    ]


def test_an_instance_needs_its_gpu_and_two_capabilities() -> None:
    """The nodes of a MIG instance are its GPU's, its GPU instance's and its compute instance's."""
    found = told(
        "envvar",
        "m0-1",
        more="migStrategy: mixed,",
        plugin="passDeviceSpecs: true,",
        resource="nvidia.com/mig-1g.5gb",
    )
    assert [one.container_path for one in found.devices] == [
        "/dev/nvidia0",
        "/dev/nvidia-caps/nvidia-cap11",
        "/dev/nvidia-caps/nvidia-cap101",
    ]
    assert found.envs == {"NVIDIA_VISIBLE_DEVICES": "m0-1"}


def test_mps_adds_its_pipe_and_memory() -> None:
    """A replica under MPS gets the pipe's folder of its resource and the shared memory."""
    found = told(
        "envvar",
        "g3::1",
        more="mpsRoot: /run/mps/,",
        rest="sharing: {mps: {resources: [{name: gpu, replicas: 2}]}}",
    )
    assert found.envs == {
        "CUDA_MPS_PIPE_DIRECTORY": "/mps/nvidia.com/gpu/pipe",
        "NVIDIA_VISIBLE_DEVICES": "g3",
    }
    assert found.mounts == (
        Mount("/mps/nvidia.com/gpu/pipe", "/run/mps/nvidia.com/gpu/pipe"),
        Mount("/dev/shm", "/run/mps/shm"),  # noqa: S108 -- CUDA looks for it there
    )
