"""A plugin's end, and the restart of kubelet: what is lost, what stays."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading

import grpc
import pytest

from deviceplugin.v1beta1 import api_pb2
from embedded.kubelet.checkpoint import FILE_NAME
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, pod
from tests.embedded.kubelet.plugin import healthy, with_env
from tests.waiting import wait_until

NO_HEALTHY = "no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu"


def test_stream_end_is_plugin_death(node: Node, make_plugin: MakePlugin) -> None:
    """When ListAndWatch ends, allocatable is 0 at once and capacity stays."""
    make_plugin(node).end_streams()
    node.wait_numbers(4, 0)


def test_a_killed_plugin_is_noticed(node: Node, make_plugin: MakePlugin) -> None:
    """A plugin that dies with its connections counts like one that ends its stream."""
    make_plugin(node).stop()
    node.wait_numbers(4, 0)


def test_pods_fail_while_no_plugin_is_there(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that comes while the plugin is away fails for good, without a call."""
    plugin = make_plugin(node)
    plugin.end_streams()
    node.wait_numbers(4, 0)
    late = pod("late")
    node.bind(late)
    status = node.wait_phase(late, "Failed")
    assert status["reason"] == "UnexpectedAdmissionError"
    assert f"Allocate failed due to {NO_HEALTHY}, which is unexpected" in status["message"]
    assert plugin.allocated == []


def test_a_stopped_endpoint_answers_without_a_call(node: Node, make_plugin: MakePlugin) -> None:
    """With devices of one stream and the endpoint of another, ended one, nobody is called."""
    older = make_plugin(node)
    newer = make_plugin(node, healthy("x", "y"), endpoint="q.sock")
    newer.end_streams()
    node.wait_numbers(2, 0)
    older.send(healthy("a", "b"))
    node.wait_numbers(2, 2)
    one = pod("one")
    node.bind(one)
    assert "endpoint has been stopped" in node.wait_phase(one, "Failed")["message"]
    assert older.allocated == newer.allocated == []


def test_the_same_plugin_may_register_again(node: Node, make_plugin: MakePlugin) -> None:
    """After its stream has ended, a plugin registers again on the same socket and all is well."""
    plugin = make_plugin(node)
    plugin.end_streams()
    node.wait_numbers(4, 0)
    plugin.register()
    node.wait_numbers(4, 4)
    one = pod("one")
    node.run(one)


def test_an_old_plugins_end_disconnects_the_new_one(node: Node, make_plugin: MakePlugin) -> None:
    """Up to 1.36: start a second instance, stop the first, and allocatable is 0."""
    first = make_plugin(node)
    make_plugin(node, healthy("x", "y"), endpoint="q.sock")
    first.stop()
    node.wait_numbers(2, 0)


def test_newer_kubelets_tell_instances_apart(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """After 1.36: the old instance's end leaves the new one alone."""
    node = make_node(disconnect_by_resource=False)
    first = make_plugin(node)
    second = make_plugin(node, healthy("x", "y"), endpoint="q.sock")
    first.stop()
    second.send(healthy("x", "y", "z"))
    node.wait_numbers(3, 3)
    assert node.kubelet.journal.entries("disconnected") == ()


def test_newer_kubelets_notice_the_end_of_the_current_one(
    make_node: MakeNode, make_plugin: MakePlugin
) -> None:
    """After 1.36: the end of the registered instance still zeroes the node."""
    node = make_node(disconnect_by_resource=False)
    make_plugin(node)
    make_plugin(node, healthy("x", "y"), endpoint="q.sock").end_streams()
    node.wait_numbers(2, 0)


def test_capacity_follows_after_the_grace(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """When the plugin stays away, capacity becomes 0, too; the key stays in node.status."""
    node = make_node(stop_grace=0.05, status_period=0.02)
    make_plugin(node).end_streams()
    node.wait_numbers(0, 0)


def test_restart_deletes_sockets_only(node: Node, make_plugin: MakePlugin) -> None:
    """A new kubelet process deletes every socket in its directory and leaves other files."""
    plugin = make_plugin(node)
    (node.directory / "note.txt").write_text("stays")
    (node.directory / "folder").mkdir()
    stray = socket.socket(socket.AF_UNIX)
    stray.bind(str(node.directory / "stray.sock"))
    stray.close()
    before = (node.directory / "kubelet.sock").stat().st_ino
    node.restart()
    names = {entry.name for entry in node.directory.iterdir()}
    assert names == {"note.txt", "folder", FILE_NAME, "kubelet.sock"}
    assert (node.directory / "kubelet.sock").stat().st_ino != before
    assert plugin.endpoint not in names


def test_a_stopped_kubelet_leaves_a_dead_socket(node: Node, make_plugin: MakePlugin) -> None:
    """While kubelet is down, kubelet.sock is still a file, and nobody answers there."""
    plugin = make_plugin(node)
    node.kubelet.stop()
    assert stat.S_ISSOCK((node.directory / "kubelet.sock").stat().st_mode)
    with pytest.raises(grpc.RpcError):
        plugin.register()


def test_restart_starts_known_resources_at_zero(node: Node, make_plugin: MakePlugin) -> None:
    """After a restart a known resource has no devices until its plugin has registered again."""
    plugin = make_plugin(node)
    node.restart()
    node.wait_numbers(0, 0)
    plugin.stop()
    make_plugin(node, endpoint="again.sock")
    node.wait_numbers(4, 4)


def test_running_pods_survive_a_restart(node: Node, make_plugin: MakePlugin) -> None:
    """A running container is not touched, keeps its devices, and its pod is not asked about."""
    plugin = make_plugin(node)
    one = pod("one", 3)
    node.run(one)
    held = node.devices(one)
    node.restart()
    node.wait_numbers(0, 0)
    wait_until(lambda: len(node.kubelet.journal.entries("admitted")) == 2)
    assert node.status(one)["phase"] == "Running"
    assert [view.attempt for view in node.views(one)] == [0]
    assert node.views(one)[0].running
    assert node.listed() == {"one": {"main": held}}
    assert len(plugin.allocated) == 1


def test_devices_of_survivors_are_not_given_again(node: Node, make_plugin: MakePlugin) -> None:
    """After restart and re-registration, what running pods hold is not free."""
    make_plugin(node)
    old, new = pod("old", 3), pod("new", 1)
    node.run(old)
    node.restart()
    make_plugin(node, endpoint="again.sock")
    node.run(new)
    assert set(node.devices(old)).isdisjoint(node.devices(new))


def test_pods_bound_during_a_restart_fail(node: Node, make_plugin: MakePlugin) -> None:
    """Pods bound but not admitted when kubelet starts come before the plugin, and fail for good."""
    make_plugin(node)
    node.kubelet.stop()
    waiting = pod("waiting")
    node.bind(waiting)
    node.kubelet.start()
    status = node.wait_phase(waiting, "Failed")
    assert status["reason"] == "UnexpectedAdmissionError"
    assert NO_HEALTHY in status["message"]


def test_a_pod_whose_container_ended_meanwhile_fails(
    make_node: MakeNode, make_plugin: MakePlugin
) -> None:
    """A pod that held devices and does not run when kubelet comes back is refused."""
    now = [1000.0]
    node = make_node(clock=lambda: now[0])
    make_plugin(node)
    one = pod("one", run_seconds="100")
    node.run(one)
    node.kubelet.stop()
    now[0] += 200
    node.kubelet.start()
    assert NO_HEALTHY in node.wait_phase(one, "Failed")["message"]
    assert node.views(one)[0].ended == 1100.0


def test_finished_pods_are_left_alone_by_a_restart(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that the API server calls Succeeded is not admitted again."""
    make_plugin(node)
    done = pod("done", phase="Succeeded")
    node.bind(done)
    node.restart()
    node.run(pod("other", None))
    assert node.status(done) == {"phase": "Succeeded"}


def test_a_broken_checkpoint_is_survived(node: Node, make_plugin: MakePlugin) -> None:
    """Kubelet starts without what it cannot read, and says so."""
    make_plugin(node)
    node.kubelet.stop()
    (node.directory / FILE_NAME).write_text('{"data":{},"checksum":1}')
    node.kubelet.start()
    assert "corrupted" in node.kubelet.journal.entries("trouble")[0].detail


def test_a_stop_breaks_a_hanging_allocate(node: Node, make_plugin: MakePlugin) -> None:
    """Kubelet ends while Allocate is in flight: the pod is not failed by that, but by the restart.

    Allocate has no deadline, so only the connection's end frees a kubelet from a hung plugin.
    """
    entered, go = threading.Event(), threading.Event()

    def hang(devices: list[str]) -> api_pb2.AllocateResponse:
        entered.set()
        assert go.wait(20)
        return with_env(devices)

    make_plugin(node, answer=hang)
    one = pod("one")
    node.bind(one)
    assert entered.wait(10)
    node.kubelet.stop()
    assert node.status(one)["phase"] == "Pending"
    go.set()
    node.kubelet.start()
    assert NO_HEALTHY in node.wait_phase(one, "Failed")["message"]


def test_a_stop_does_not_wait_for_a_dial_back(node: Node, make_plugin: MakePlugin) -> None:
    """Kubelet ends while a registration waits for a socket that nobody serves."""
    plugin = make_plugin(node, register=False)
    plugin.endpoint = "nobody.sock"
    failed = threading.Event()

    def register() -> None:
        with contextlib.suppress(grpc.RpcError):
            plugin.register()
        failed.set()

    threading.Thread(target=register, daemon=True).start()
    node.kubelet.stop()
    assert failed.wait(8)  # the dial back alone would take 10 seconds
