"""PodResources v1: what List, Get and GetAllocatableResources tell."""

from __future__ import annotations

import grpc
import pytest

from deviceplugin.podresources.v1 import api_pb2
from deviceplugin.v1beta1 import api_pb2 as plugin_pb2
from embedded.kubelet.podresources import TokenBucket
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, container, pod
from tests.embedded.kubelet.plugin import healthy, on_nodes
from tests.waiting import wait_until


def test_pods_without_devices_are_listed(node: Node) -> None:
    """A pod that asks for no device is in List with empty containers."""
    node.run(pod("plain", None))
    assert node.listed() == {"plain": {"main": []}}


def test_finished_init_containers_are_not_listed(node: Node, make_plugin: MakePlugin) -> None:
    """List shows sidecars and containers, and no other init container."""
    make_plugin(node)
    side = container("side", 1, restart_policy="Always")
    node.run(pod("one", containers=[container("app", 1)], init=[container("init", 1), side]))
    assert set(node.listed()["one"]) == {"side", "app"}


def test_numa_nodes_are_separate_entries(node: Node, make_plugin: MakePlugin) -> None:
    """A device on two NUMA nodes has two entries, each with one node."""
    both = on_nodes(a=0)
    both[0].topology.nodes.append(plugin_pb2.NUMANode(ID=1))
    make_plugin(node, both)
    node.run(pod("one"))
    answer = node.resources().List(api_pb2.ListPodResourcesRequest(), timeout=5)
    entries = answer.pod_resources[0].containers[0].devices
    assert [(list(e.device_ids), [n.ID for n in e.topology.nodes]) for e in entries] == [
        (["a"], [0]),
        (["a"], [1]),
    ]


def test_get_tells_one_pod(node: Node, make_plugin: MakePlugin) -> None:
    """Get answers for one pod by name and namespace."""
    make_plugin(node, healthy("a"))
    node.run(pod("one"))
    request = api_pb2.GetPodResourcesRequest(pod_name="one", pod_namespace="default")
    told = node.resources().Get(request, timeout=5).pod_resources
    assert (told.name, told.namespace) == ("one", "default")
    assert list(told.containers[0].devices[0].device_ids) == ["a"]


def test_get_of_an_unknown_pod_is_an_error(node: Node) -> None:
    """Get names the pod that it does not find."""
    request = api_pb2.GetPodResourcesRequest(pod_name="no", pod_namespace="where")
    with pytest.raises(grpc.RpcError, match="pod no in namespace where not found"):
        node.resources().Get(request, timeout=5)


def test_allocatable_are_the_healthy_ones(node: Node, make_plugin: MakePlugin) -> None:
    """GetAllocatableResources tells healthy devices, those in use as well."""
    bad = plugin_pb2.Device(ID="c", health="Unhealthy")
    make_plugin(node, [*healthy("a", "b"), bad])
    node.run(pod("one"))
    answer = node.resources().GetAllocatableResources(api_pb2.AllocatableResourcesRequest())
    assert sorted(i for entry in answer.devices for i in entry.device_ids) == ["a", "b"]


def test_list_frees_devices_of_ended_pods(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that has ended is absent from List."""
    make_plugin(node)
    short = pod("short", run_seconds="0")
    node.bind(short)
    node.wait_phase(short, "Succeeded")
    assert node.listed() == {}


def test_beyond_the_burst_calls_are_refused(make_node: MakeNode) -> None:
    """More calls than the burst, at once, are answered with ResourceExhausted."""
    node = make_node(resources_rate=0.001)
    stub = node.resources()
    for _ in range(10):
        stub.List(api_pb2.ListPodResourcesRequest(), timeout=5)
    with pytest.raises(grpc.RpcError, match="rejected by rate limit") as refused:
        stub.List(api_pb2.ListPodResourcesRequest(), timeout=5)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_rate_refills() -> None:
    """The bucket holds ten tokens and gets one every hundredth of a second."""
    now = [0.0]
    bucket = TokenBucket(100.0, 10, lambda: now[0])
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    now[0] = 0.02
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_the_socket_is_back_after_a_restart(node: Node, make_plugin: MakePlugin) -> None:
    """PodResources serves the checkpointed devices of survivors after a kubelet restart."""
    make_plugin(node, healthy("a"))
    node.run(pod("one"))
    node.restart()
    wait_until(lambda: node.listed() == {"one": {"main": ["a"]}})
