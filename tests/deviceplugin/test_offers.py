"""What the whole plugin offers under a configuration: real sockets, a kubelet, pynvml."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from mock_nvml.faults import Partition
from tests.deviceplugin.injection.rules import check
from tests.deviceplugin.world import World
from tests.waiting import wait_until

GPU = "nvidia.com/gpu"
SMALL = "nvidia.com/mig-1g.5gb"
MIDDLE = "nvidia.com/mig-2g.10gb"

RELOADED = 'gputopo_plugin_config_reloads_total{result="ok"}'

Start = Callable[..., World]


@pytest.fixture
def start() -> Iterator[Start]:
    """Make a node of eight A100 with a configuration, and start its plugin."""
    worlds: list[World] = []

    def make(config: str, *partitions: Partition) -> World:
        world = World("dgx-a100-8x", config)
        worlds.append(world)
        for partition in partitions:
            world.mock.apply(partition)
        world.run_plugin()
        return world

    yield make
    for world in worlds:
        world.close()


def wait_for(world: World, resource: str, count: int) -> None:
    """Wait until kubelet offers so many devices of a resource."""
    wait_until(lambda: world.allocatable(resource) == str(count), 30, what=f"{count} of {resource}")


def visible(world: World, pod: str) -> list[str]:
    """Return the names of devices that a pod's container was told."""
    return world.container(pod).env["NVIDIA_VISIBLE_DEVICES"].split(",")


def test_mig_instances_are_resources_of_their_own(start: Start) -> None:
    """Each profile has a registration; a pod gets instances, another one whole GPUs."""
    world = start(
        "flags: {migStrategy: mixed, plugin: {passDeviceSpecs: true}}",
        Partition(gpu=0, profiles=("1g.5gb", "1g.5gb", "2g.10gb")),
    )
    wait_for(world, SMALL, 2)
    wait_for(world, MIDDLE, 1)
    wait_for(world, GPU, 7)
    world.bind("small", 2, None, SMALL)
    assert all(name.startswith("MIG-") for name in visible(world, "small"))
    nodes = [node.container_path for node in world.container("small").device_nodes]
    assert nodes[0] == "/dev/nvidia0"
    assert sum(node.startswith("/dev/nvidia-caps/nvidia-cap") for node in nodes) == 4
    world.bind("whole", 1, (3,))
    assert visible(world, "whole") == [world.topology().gpus[3].uuid]


def test_a_gpu_is_cut_anew_while_the_plugin_runs(start: Start) -> None:
    """Old resources go to zero, new ones come, whole GPUs return; pods elsewhere run on."""
    world = start(
        "flags: {migStrategy: mixed}",
        Partition(gpu=0, profiles=("1g.5gb",) * 7),
        Partition(gpu=1, profiles=("2g.10gb",)),
    )
    wait_for(world, SMALL, 7)
    wait_for(world, GPU, 6)
    world.bind("other", 1, None, MIDDLE)
    before = visible(world, "other")
    registered = len(world.kubelet.journal.entries("registered"))
    world.mock.apply(Partition(gpu=0, profiles=("2g.10gb",) * 3))
    wait_for(world, SMALL, 0)
    wait_for(world, MIDDLE, 4)
    world.mock.apply(Partition(gpu=0, profiles=None))
    wait_for(world, GPU, 7)
    wait_for(world, MIDDLE, 1)
    assert visible(world, "other") == before
    assert world.container("other").attempt == 0
    assert len(world.kubelet.journal.entries("registered")) == registered
    world.mock.apply(Partition(gpu=0, profiles=("1g.5gb",)))
    wait_for(world, SMALL, 1)
    world.bind("again", 1, None, SMALL)
    assert visible(world, "again")[0].startswith("MIG-")


def test_the_scheduler_is_told_what_is_not_offered_whole(start: Start) -> None:
    """The state withholds a GPU that is cut, and names who has instances of it."""
    world = start("flags: {migStrategy: mixed}", Partition(gpu=2, profiles=("1g.5gb", "1g.5gb")))
    wait_for(world, SMALL, 2)
    uid = world.bind("small", 1, None, SMALL)
    wait_until(lambda: uid in world.state().allocations, what="the read-back")
    gpu = world.topology().gpus[2].uuid
    assert world.state().allocations[uid] == (gpu,)
    assert world.state().withheld == {gpu: f"offered as {SMALL}"}
    assert set(world.state().resources) == {GPU, SMALL}


def test_single_waits_while_a_node_is_being_cut(start: Start) -> None:
    """Half cut, nothing is offered and readiness says why; all alike, instances are GPUs."""
    world = start("flags: {migStrategy: single}", Partition(gpu=0, profiles=("3g.20gb",) * 2))
    wait_until(lambda: "is not in MIG mode" in (world.probe("readyz") or ""), what="the reason")
    for gpu in range(1, 8):
        world.mock.apply(Partition(gpu=gpu, profiles=("3g.20gb",) * 2))
    wait_for(world, GPU, 16)
    world.bind("pod", 3, None)
    assert len(visible(world, "pod")) == 3


def test_shares_are_spread_and_the_schedulers_set_is_first(start: Start) -> None:
    """Time-slices of four for each GPU: two pods' shares lie apart, a bound set is honoured."""
    world = start("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 4}]}}")
    wait_for(world, GPU, 32)
    wait_until(lambda: "gputopo.dev/topology" in world.annotations(), what="the topology")
    world.bind("a", 2, None)
    assert len(visible(world, "a")) == 2
    world.bind("b", 2, (6, 1))
    assert world.sees("b") == {1, 6}
    assert world.metric('gputopo_plugin_preferred_allocations_total{outcome="exact"}') == 1
    assert set(world.state().withheld.values()) == {f"shared as {GPU}"}


def test_a_pod_may_not_ask_for_two_shares(start: Start) -> None:
    """With `failRequestsGreaterThanOne` such a pod fails, and says why."""
    world = start(
        "sharing: {timeSlicing: {failRequestsGreaterThanOne: true, "
        "resources: [{name: gpu, rename: share, replicas: 2}]}}"
    )
    wait_for(world, "nvidia.com/share", 16)
    world.bind("greedy", 2, None, "nvidia.com/share")
    wait_until(lambda: world.phase("greedy")[0] == "Failed", what="the refusal")
    assert "2 replicas of nvidia.com/share asked; one is allowed" in world.phase("greedy")[1]
    world.bind("modest", 1, None, "nvidia.com/share")
    assert len(visible(world, "modest")) == 1


def test_a_configuration_is_followed(start: Start) -> None:
    """A new content changes what is offered and told; a broken one is counted and changes none."""
    world = start("flags: {plugin: {deviceIDStrategy: index}}")
    wait_for(world, GPU, 8)
    world.bind("index", 1, (5,))
    assert visible(world, "index") == ["5"]
    world.config.write_text("flags: {plugin: {deviceIDStrategy: nothing}}")
    failed = 'gputopo_plugin_config_reloads_total{result="failed"}'
    wait_until(lambda: world.metric(failed) == 1, what="the failure")
    world.bind("still", 1, (6,))
    assert visible(world, "still") == ["6"]
    world.config.write_text("gpus: {exclude: [0, 1]}")
    wait_for(world, GPU, 6)
    gpus = world.topology().gpus
    wait_until(
        lambda: set(world.state().withheld) == {gpus[0].uuid, gpus[1].uuid}, what="the state"
    )
    world.bind("uuid", 1, (7,))
    assert visible(world, "uuid") == [gpus[7].uuid]


def test_a_mounted_config_map_is_followed(start: Start) -> None:
    """Kubelet turns a link two levels above the file: the content is what counts."""
    world = World("dgx-a100-8x")
    try:
        mount = world.folder / "mount"
        for name, text in (("..1", ""), ("..2", "gpus: {include: [3]}")):
            (mount / name).mkdir(parents=True)
            (mount / name / "config.yaml").write_text(text)
        (mount / "..data").symlink_to("..1")
        (mount / "config.yaml").symlink_to("..data/config.yaml")
        world.config = mount / "config.yaml"
        world.run_plugin()
        wait_for(world, GPU, 8)
        (mount / "..new").symlink_to("..2")
        (mount / "..new").rename(mount / "..data")
        wait_for(world, GPU, 1)
    finally:
        world.close()


def test_models_get_resources_by_pattern(start: Start) -> None:
    """A rule names the GPUs of a model; the usual name has none left and is not registered."""
    world = start('resources: {gpus: [{pattern: "NVIDIA A100*", name: a100}]}')
    wait_for(world, "nvidia.com/a100", 8)
    world.bind("pod", 2, None, "nvidia.com/a100")
    assert len(visible(world, "pod")) == 2
    registered = {entry.subject for entry in world.kubelet.journal.entries("registered")}
    assert registered == {"nvidia.com/a100"}


def test_cdi_files_live_with_the_plugin(start: Start) -> None:
    """Files are there before the pod is, follow a repartitioning, and go with the plugin."""
    world = start(
        "flags: {migStrategy: mixed, plugin: {deviceListStrategy: [cdi-cri, cdi-annotations]}}"
    )
    wait_for(world, GPU, 8)
    file = world.folder / "cdi" / "k8s.device-plugin.nvidia.com-gpu.json"

    def devices() -> set[str]:
        spec = json.loads(file.read_text())
        check(spec)
        return {f"{spec['kind']}={device['name']}" for device in spec["devices"]}

    world.bind("pod", 2, (2, 3))
    container = world.container("pod")
    assert len(container.cdi_devices) == 2
    assert set(container.cdi_devices) <= devices()
    assert "NVIDIA_VISIBLE_DEVICES" not in container.env
    assert any("nvidia-device-plugin_" in key for key in container.annotations)
    world.mock.apply(Partition(gpu=0, profiles=("1g.5gb",)))
    wait_for(world, SMALL, 1)
    assert any("=MIG-" in device for device in devices())
    file.unlink()
    wait_until(file.exists, what="the file to come again")
    world.stop_plugin()
    assert list((world.folder / "cdi").iterdir()) == []


def test_without_kubelet_socket_nothing_is_registered(start: Start) -> None:
    """An empty socket in the configuration: the plugin serves, and kubelet never hears of it."""
    world = start('flags: {kubeletSocket: ""}')
    plugins = world.kubelet.device_plugins_dir
    wait_until(lambda: list(plugins.glob("gputopo-*.sock")), what="the plugin's socket")
    wait_until(lambda: world.probe("readyz") is None, what="readiness")
    assert world.kubelet.journal.entries("registered") == ()


def test_kubelets_socket_may_stand_elsewhere(start: Start) -> None:
    """The plugin's sockets are in its folder, the one it registers with is where it is told."""
    world = World("dgx-a100-8x")
    try:
        elsewhere = world.folder / "elsewhere.sock"
        elsewhere.symlink_to(world.kubelet.device_plugins_dir / "kubelet.sock")
        world.config.write_text(f"flags: {{kubeletSocket: {elsewhere}}}")
        world.run_plugin()
        wait_for(world, GPU, 8)
    finally:
        world.close()


def test_what_an_xid_does_is_followed(start: Start) -> None:
    """A new content of the health section counts from the next event on."""
    world = start("health: {xids: {94: ignore}}")
    wait_for(world, GPU, 8)
    world.mock.inject("xid", gpu=2, xid=94)
    ignored = 'gputopo_plugin_health_events_total{kind="xid",response="ignore"}'
    wait_until(lambda: world.metric(ignored) == 1, what="the event")
    assert world.allocatable() == "8"
    world.config.write_text("health: {holdSeconds: 600}")
    wait_until(lambda: world.metric(RELOADED) == 1, what="the reload")
    world.mock.inject("xid", gpu=2, xid=94)
    wait_for(world, GPU, 7)
