"""Health as Kubernetes sees it: the whole plugin, an API server, a kubelet, faults of the mock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.deviceplugin.world import World
from tests.waiting import wait_until


@pytest.fixture
def world() -> Iterator[World]:
    """Return a node whose plugin runs."""
    world = World()
    world.start_plugin()
    yield world
    world.close()


def events(world: World) -> list[dict[str, Any]]:
    """Return the Events of the node."""
    found = msgspec.json.decode(world.client.get("/api/v1/namespaces/default/events"))
    return [one for one in found["items"] if one["involvedObject"]["name"] == "n1"]


def reasons(world: World) -> list[str]:
    """Return what the Events of the node say has happened."""
    return [one["reason"] for one in events(world)]


def cordon(world: World, text: str | None) -> None:
    """Annotate the Node as an operator does."""
    body = {"metadata": {"annotations": {"gputopo.dev/cordon": text}}}
    world.client.patch("/api/v1/nodes/n1", body)


def test_a_fault_and_its_end_are_told_on_the_node(world: World) -> None:
    """As Events with the reason, and in the state with its beginning."""
    uuid = world.topology().gpus[3].uuid
    world.mock.inject("xid", gpu=3, xid=79)
    wait_until(lambda: uuid in world.state().conditions, what="the condition")
    condition = world.state().conditions[uuid]
    assert condition.status == "unhealthy"
    assert condition.why.startswith("XID 79")
    assert condition.since.endswith("Z")
    wait_until(lambda: "GpuRecovered" in reasons(world), timeout=20, what="the recovery")
    told = {one["reason"]: one for one in events(world)}
    assert told["GpuUnhealthy"]["type"] == "Warning"
    assert f"GPU 3 ({uuid}) gets no new pods: XID 79" in told["GpuUnhealthy"]["message"]
    wait_until(lambda: not world.state().conditions, what="no condition any more")


def test_a_flaw_is_told_and_no_gpu_is_lost(world: World) -> None:
    """A hot GPU is degraded in the state, and kubelet offers it on."""
    uuid = world.topology().gpus[1].uuid
    world.mock.inject("thermal", gpu=1, celsius=90)
    wait_until(lambda: uuid in world.state().conditions, what="the condition")
    assert world.state().conditions[uuid].status == "degraded"
    assert world.state().unhealthy == {}
    assert world.allocatable() == "8"


def test_a_cordoned_gpu_is_drained_and_comes_back(world: World) -> None:
    """The pod on it runs on; when it ends nobody gets the GPU until the cordon is lifted."""
    world.bind("here", 2, (0, 3))
    assert world.sees("here") == {0, 3}
    held, free = world.topology().gpus[3].uuid, world.topology().gpus[5].uuid
    cordon(world, "3, 5")
    wait_until(lambda: world.state().withheld.keys() == {held, free}, what="both withheld")
    assert world.state().unhealthy == {}
    wait_until(lambda: world.allocatable() == "7", what="the free one is closed, the held is not")
    assert world.phase("here")[0] == "Running"
    world.client.delete("/api/v1/namespaces/d/pods/here")
    wait_until(lambda: world.allocatable() == "6", what="the held one is closed when it is free")
    wait_until(lambda: "GpuDrained" in reasons(world), what="the Event")
    world.bind("other", 6, None)
    assert world.sees("other") == {0, 1, 2, 4, 6, 7}
    cordon(world, None)
    wait_until(lambda: world.allocatable() == "8", what="all are open again")
    wait_until(lambda: world.state().withheld == {}, what="nothing is withheld")


def test_the_liveness_probe_tells_of_a_hanging_call() -> None:
    """So that kubelet starts another process, the only cure."""
    world = World()
    world.options["nvml_patience_seconds"] = 1.0
    try:
        world.start_plugin()
        assert world.probe("healthz") is None
        world.mock.inject("slow", function="nvmlDeviceGetMemoryInfo", seconds=600, gpu=2)
        wait_until(lambda: world.probe("healthz"), what="the probe fails")
        assert world.probe("healthz") == "NVML hangs: asking GPU 2 how it fares\n"
        world.mock.inject("recover")
        wait_until(lambda: world.probe("healthz") is None, timeout=20, what="the probe is well")
    finally:
        world.close()


def test_another_driver_ends_the_plugin_with_1(world: World) -> None:
    """The message says why; kubelet starts the container anew, with the right library."""
    world.bind("here", 2, (0, 3))
    assert world.sees("here") == {0, 3}
    world.mock.inject("driver", version="590.44.01")
    wait_until(lambda: world.codes, timeout=30, what="the end of the plugin")
    assert world.codes == [1]
    assert world.phase("here")[0] == "Running"


def test_a_kubelet_that_has_forgotten_the_devices_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives out none though the stream is open: a race of kubelets that nothing else shows."""
    monkeypatch.setattr("deviceplugin.serving.endpoints.SETTLED", 0.5)
    process = world.kubelet._process
    assert process is not None
    process._devices.disconnected("nvidia.com/gpu")
    wait_until(lambda: world.allocatable() == "0", what="no GPUs")
    wait_until(lambda: world.allocatable() == "8", timeout=30, what="8 GPUs again")
    forgotten = 'gputopo_plugin_registrations_total{cause="forgotten",result="ok"}'
    assert world.metric(forgotten) == 1
    world.bind("a", 3, (0, 3, 7))
    assert world.sees("a") == {0, 3, 7}
