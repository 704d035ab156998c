"""Containers' lives: start, restart, end, and PreStartContainer before each start."""

from __future__ import annotations

import pytest

from deviceplugin.v1beta1 import api_pb2
from embedded.kubelet import ContainerView
from embedded.kubelet.errors import KubeletError
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, container, pod
from tests.embedded.kubelet.plugin import RefusedError, healthy
from tests.waiting import wait_until


def full(devices: list[str]) -> api_pb2.AllocateResponse:
    """Answer with everything that an answer can hold."""
    return api_pb2.AllocateResponse(
        container_responses=[
            api_pb2.ContainerAllocateResponse(
                envs={"N": str(len(devices))},
                mounts=[api_pb2.Mount(container_path="/c", host_path="/h", read_only=True)],
                devices=[
                    api_pb2.DeviceSpec(
                        container_path="/dev/x", host_path="/dev/y", permissions="rw"
                    )
                ],
                annotations={"k": "v"},
                cdi_devices=[api_pb2.CDIDevice(name="v/c=d")],
            )
        ]
    )


def test_everything_of_the_answer_reaches_the_container(
    node: Node, make_plugin: MakePlugin
) -> None:
    """Environment, mounts, device nodes, annotations and CDI names come from Allocate."""
    make_plugin(node, answer=full)
    one = pod("one")
    node.run(one)
    view = node.views(one)[0]
    assert view.env == {"N": "1"}
    assert [(m.container_path, m.host_path, m.read_only) for m in view.mounts] == [
        ("/c", "/h", True)
    ]
    assert [(d.container_path, d.host_path, d.permissions) for d in view.device_nodes] == [
        ("/dev/x", "/dev/y", "rw")
    ]
    assert view.annotations == {"k": "v"}
    assert view.cdi_devices == ("v/c=d",)


def test_a_restart_replays_the_answer(node: Node, make_plugin: MakePlugin) -> None:
    """A container that restarts gets the same again, without a call."""
    plugin = make_plugin(node, answer=full)
    one = pod("one", 2)
    node.run(one)
    node.kubelet.crash_container("default", "one", "main")
    wait_until(lambda: len(node.views(one)) == 2)
    first, second = node.views(one)
    assert (first.env, first.devices) == (second.env, second.devices)
    assert [first.running, second.running] == [False, True]
    assert len(plugin.allocated) == 1


def test_a_restart_after_a_kubelet_restart_replays_too(node: Node, make_plugin: MakePlugin) -> None:
    """The cached answer is in the checkpoint: no plugin is needed to restart a container."""
    make_plugin(node, answer=full)
    one = pod("one", 2)
    node.run(one)
    node.restart()
    wait_until(lambda: len(node.kubelet.journal.entries("admitted")) == 2)
    node.kubelet.crash_container("default", "one", "main")
    wait_until(lambda: len(node.views(one)) == 2)
    first, second = node.views(one)
    assert (first.env, first.mounts, first.cdi_devices) == (
        second.env,
        second.mounts,
        second.cdi_devices,
    )


def test_pre_start_comes_before_every_start(node: Node, make_plugin: MakePlugin) -> None:
    """PreStartContainer is called with the container's devices at each start and restart."""
    asked: list[list[str]] = []
    make_plugin(node, healthy("a"), pre_start=asked.append)
    one = pod("one")
    node.run(one)
    node.kubelet.crash_container("default", "one", "main")
    wait_until(lambda: len(node.views(one)) == 2)
    assert asked == [["a"], ["a"]]


def test_a_failing_pre_start_is_tried_again(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """An error of PreStartContainer leaves the container waiting; it is tried again later."""
    node = make_node(first_backoff=0.01)
    tries: list[int] = []

    def refuse_twice(_: list[str]) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RefusedError("not yet")

    make_plugin(node, pre_start=refuse_twice)
    one = pod("one")
    node.run(one)
    assert len(tries) == 3
    assert len(node.views(one)) == 1


def test_pre_start_makes_restarts_need_the_plugin(
    make_node: MakeNode, make_plugin: MakePlugin
) -> None:
    """With the endpoint stopped a container with PreStartContainer cannot restart."""
    node = make_node(first_backoff=0.01)
    plugin = make_plugin(node, pre_start=lambda _: None)
    one = pod("one")
    node.run(one)
    plugin.end_streams()
    node.wait_numbers(4, 0)
    node.kubelet.crash_container("default", "one", "main")
    wait_until(
        lambda: any(
            "endpoint has been stopped" in entry.detail
            for entry in node.kubelet.journal.entries("trouble")
        )
    )
    assert len(node.views(one)) == 1
    plugin.register()
    wait_until(lambda: len(node.views(one)) == 2)


def test_a_pod_ends_after_its_time(node: Node, make_plugin: MakePlugin) -> None:
    """A pod with a run time ends Succeeded with its containers terminated."""
    make_plugin(node)
    one = pod("one", run_seconds="0.1")
    node.bind(one)
    status = node.wait_phase(one, "Succeeded")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    view = node.views(one)[0]
    assert view.ended is not None
    assert view.ended - view.started == pytest.approx(0.1)


def test_an_unreadable_run_time_is_reported(node: Node) -> None:
    """A run time that is no number lets the pod run on, and is noted."""
    one = pod("one", None, run_seconds="soon")
    node.run(one)
    assert "'soon' is no time" in node.kubelet.journal.entries("trouble")[0].detail


def test_init_containers_end_first(node: Node) -> None:
    """Init containers have ended when the others start; sidecars go on."""
    side = container("side", None, restart_policy="Always")
    one = pod("one", None, init=[container("init", None), side])
    node.run(one)
    names = [view.container for view in node.kubelet.containers()]
    assert names == ["init", "side", "main"]
    assert [view.running for view in node.kubelet.containers()] == [False, True, True]


def test_sidecars_end_with_their_pod(node: Node) -> None:
    """When the main container has ended well, the sidecar is ended too."""
    side = container("side", None, restart_policy="Always")
    one = pod("one", None, init=[side], run_seconds="0.1")
    node.bind(one)
    node.wait_phase(one, "Succeeded")
    assert [view.running for view in node.kubelet.containers()] == [False, False]


def test_containers_outlive_a_stopped_kubelet(node: Node) -> None:
    """While no kubelet runs the containers do."""
    one = pod("one", None)
    node.run(one)
    node.kubelet.stop()
    assert node.views(one)[0].running


def test_every_start_is_told(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """`on_started` is called with each container as it starts."""
    told: list[ContainerView] = []
    node = make_node(on_started=told.append)
    make_plugin(node)
    node.run(pod("one", containers=[container("x"), container("y")]))
    assert [view.container for view in told] == ["x", "y"]
    assert all("NVIDIA_VISIBLE_DEVICES" in view.env for view in told)


def test_only_a_running_container_can_crash(node: Node) -> None:
    """Crashing what does not run is refused with its name."""
    with pytest.raises(KubeletError, match="default/no: container main does not run"):
        node.kubelet.crash_container("default", "no", "main")


def test_a_pod_deleted_while_no_kubelet_ran_ends(node: Node, make_plugin: MakePlugin) -> None:
    """The new process finds its container running and its pod gone; the devices are free again."""
    make_plugin(node)
    gone, stays = pod("gone", 2), pod("stays", 2)
    node.run(gone, stays)
    node.kubelet.stop()
    node.remove(gone)
    assert node.views(gone)[-1].running
    node.kubelet.start()
    wait_until(lambda: not node.views(gone)[-1].running, what="the end of its container")
    assert node.views(stays)[-1].running
    make_plugin(node)
    node.run(pod("next", 2))
