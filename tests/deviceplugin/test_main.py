"""The whole plugin: real sockets, a kubelet, an API server, unmodified pynvml."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from deviceplugin.main import run
from deviceplugin.settings import PluginSettings
from runtime.errors import ConflictError
from tests.deviceplugin.world import World
from tests.waiting import wait_until


@pytest.fixture
def world() -> Iterator[World]:
    """Return a node on which no plugin runs yet."""
    world = World()
    yield world
    world.close()


def test_a_pod_gets_exactly_its_set(world: World) -> None:
    """From Binding to environment: each container sees the set that its pod was bound with."""
    world.start_plugin()
    sets = {"a": (1, 6), "b": (0, 3, 5), "c": (2,)}
    uids = {name: world.bind(name, len(indexes), indexes) for name, indexes in sets.items()}
    for name, indexes in sets.items():
        assert world.sees(name) == set(indexes)
    wait_until(lambda: world.state().allocations.keys() == set(uids.values()), what="read-back")
    where = world.topology().position_of()
    assert {
        uid: {where[uuid] for uuid in uuids} for uid, uuids in world.state().allocations.items()
    } == {uids[name]: set(indexes) for name, indexes in sets.items()}
    exact = 'gputopo_plugin_preferred_allocations_total{outcome="exact"}'
    assert world.metric(exact) == 3
    honoured = 'gputopo_plugin_realised_total{outcome="honoured"}'
    wait_until(lambda: world.metric(honoured) == 3, what="the verdicts")


def test_a_pod_of_another_scheduler_leaves_promises_alone(world: World) -> None:
    """A pod bound without a set runs, on GPUs that were promised to nobody."""
    world.start_plugin()
    world.bind("foreign", 4, None)
    world.bind("ours", 4, tuple({*range(8)} - world.sees("foreign")))
    assert world.sees("foreign") | world.sees("ours") == set(range(8))


def test_a_strict_pod_is_refused_when_its_set_is_taken(world: World) -> None:
    """Strict fails with a message that says why; a pod that is not strict runs elsewhere."""
    world.start_plugin()
    world.bind("first", 2, (0, 3))
    assert world.sees("first") == {0, 3}
    world.bind("strict", 2, (3, 7), **{"gputopo.dev/strict": "true"})
    wait_until(lambda: world.phase("strict")[0] == "Failed", what="the refusal")
    assert "not_offered" in world.phase("strict")[1]
    world.bind("lenient", 2, (3, 7))
    assert 7 in world.sees("lenient")
    assert not world.sees("lenient") & {0, 3}
    assert world.metric('gputopo_plugin_drift_total{reason="not_offered"}') == 1


def test_gpus_of_ended_pods_are_published_as_free(world: World) -> None:
    """After a pod's deletion its GPUs leave the state."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    world.client.delete("/api/v1/namespaces/d/pods/a")
    wait_until(lambda: not world.state().allocations, what="the end of the allocation")


def test_kubelet_may_restart_and_lose_sockets(world: World) -> None:
    """A restarted kubelet, a renewed kubelet.sock, a deleted own socket: all are survived."""
    world.start_plugin()
    world.bind("a", 2, (0, 3))
    assert world.sees("a") == {0, 3}
    for number, disturb in enumerate(
        (world.kubelet.restart, world.kubelet.wipe_socket, lambda: _unlink_own(world))
    ):
        before = len(world.kubelet.journal.entries("registered"))
        disturb()
        wait_until(
            lambda before=before: len(world.kubelet.journal.entries("registered")) > before,
            what="a registration",
        )
        wait_until(lambda: world.allocatable() == "8", what="8 GPUs in node.status")
        wait_until(lambda: world.probe("readyz") is None, what="readiness")
        # A pod that comes while kubelet has just lost the plugin would fail for good, as on a
        # real node: the scheduler holds it back, and so do we.
        world.bind(f"p{number}", 1, (4 + number,))
        assert world.sees(f"p{number}") == {4 + number}
    assert world.sees("a") == {0, 3}


def test_a_new_process_takes_over(world: World) -> None:
    """The socket goes with the process; the next one reads back what pods hold, and goes on."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    before = world.state().generation
    world.stop_plugin()
    assert world.codes == [0]
    assert not list(world.kubelet.device_plugins_dir.glob("gputopo-*"))
    wait_until(lambda: world.allocatable() == "0", what="no GPUs in node.status")
    world.start_plugin()
    assert world.state().allocations.keys() == {uid}
    assert world.state().generation >= before
    world.bind("b", 2, (1, 2))
    assert world.sees("b") == {1, 2}


def test_a_failed_gpu_is_withheld_and_comes_back(world: World) -> None:
    """XID 79: one GPU less in node.status, its reason in the state; then all is well again."""
    world.start_plugin()
    uuid = world.topology().gpus[5].uuid
    world.mock.inject("lost", gpu=world.topology().gpus[5].index)
    wait_until(lambda: world.allocatable() == "7", what="7 GPUs in node.status")
    wait_until(lambda: world.state().unhealthy.keys() == {uuid}, what="the reason")
    world.bind("a", 2, (4, 7))
    assert world.sees("a") == {4, 7}
    world.mock.inject("recover")
    wait_until(lambda: world.allocatable() == "8", timeout=20, what="8 GPUs in node.status")
    wait_until(lambda: not world.state().unhealthy, what="the state to say so")


def test_the_api_server_may_go_away(world: World) -> None:
    """Meanwhile the plugin stays ready; afterwards what has happened is published."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    world.api.go_away()
    world.mock.inject("xid", gpu=0, xid=48)
    failed = 'gputopo_plugin_api_writes_total{result="failed"}'
    wait_until(lambda: world.metric(failed) > 0, what="a write that fails")
    assert world.probe("readyz") is None
    world.api.come_back()
    wait_until(lambda: world.state().generation > 1, timeout=20, what="the newest state")


def test_without_nvml_the_node_is_not_offered(world: World) -> None:
    """No driver: alive, not ready, nothing advertised; once it is there, all by itself."""
    world.mock.inject("call", function="nvmlInitWithFlags", code="DRIVER_NOT_LOADED")
    world.run_plugin()
    wait_until(lambda: "DRIVER_NOT_LOADED" in (world.probe("readyz") or ""), what="the problem")
    assert world.probe("healthz") is None
    assert world.allocatable() == "0"
    world.mock.inject("recover")
    wait_until(lambda: world.probe("readyz") is None, timeout=20, what="readiness")


@pytest.mark.parametrize("what", ["kubeconfig", "policy", "port"])
def test_a_start_that_cannot_succeed_ends_with_one(world: World, what: str) -> None:
    """No credentials, an unknown profile, a taken port: exit code 1."""
    settings = PluginSettings(
        node_name="n1",
        kubeconfig="/nowhere" if what == "kubeconfig" else str(world.kubeconfig),
        policy="best" if what == "policy" else "training",
        device_plugins_dir=str(world.kubelet.device_plugins_dir),
        ops_host="127.0.0.1",
        ops_port=int(world.api.url.rpartition(":")[2]),
    )
    assert run(settings, stop=threading.Event()) == 1


def _unlink_own(world: World) -> None:
    for path in world.kubelet.device_plugins_dir.glob("gputopo-*"):
        path.unlink()


def test_binding_twice_is_refused_by_the_server(world: World) -> None:
    """The world of these tests is honest: a bound pod cannot be bound again."""
    world.start_plugin()
    world.bind("a", 1, (0,))
    with pytest.raises(ConflictError):
        world.client.post(
            "/api/v1/namespaces/d/pods/a/binding",
            {"metadata": {"name": "a", "namespace": "d"}, "target": {"name": "n1"}},
        )
