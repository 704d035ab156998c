"""Register: what kubelet asks, refuses and does next."""

from __future__ import annotations

import grpc
import pytest

from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, pod
from tests.embedded.kubelet.plugin import healthy
from tests.waiting import wait_until


def test_dials_back_before_it_answers(node: Node, make_plugin: MakePlugin) -> None:
    """Register returns only after kubelet has asked the plugin for its options."""
    plugin = make_plugin(node, register=False)
    plugin.register()
    assert plugin.calls[0][0] == "GetDevicePluginOptions"


def test_opens_list_and_watch_after_the_answer(node: Node, make_plugin: MakePlugin) -> None:
    """ListAndWatch is opened after Register, and its first list becomes the node's numbers."""
    plugin = make_plugin(node)
    assert [name for name, _ in plugin.calls] == ["GetDevicePluginOptions", "ListAndWatch"]
    assert node.numbers() == ("4", "4")


def test_joins_the_endpoint_to_the_plugins_directory(node: Node, make_plugin: MakePlugin) -> None:
    """The endpoint of a request is a file name in the device plugins' directory."""
    make_plugin(node, endpoint="gpu-7f3a.sock")
    assert node.numbers() == ("4", "4")


def test_ignores_the_options_of_the_request(node: Node, make_plugin: MakePlugin) -> None:
    """An option that is only in RegisterRequest has no effect."""
    plugin = make_plugin(node, register=False)
    plugin.register(get_preferred_allocation_available=True, pre_start_required=True)
    node.wait_numbers(4, 4)
    node.run(pod("one"))
    assert plugin.asked == []
    assert plugin.called("PreStartContainer") == []


def test_uses_the_options_of_the_dial_back(node: Node, make_plugin: MakePlugin) -> None:
    """An option that only GetDevicePluginOptions tells is in force."""
    plugin = make_plugin(node, prefer=lambda free, _, size: sorted(free)[:size])
    node.run(pod("one"))
    assert plugin.asked == [(["a", "b", "c", "d"], [], 1)]


@pytest.mark.parametrize("version", ["v1alpha", "v1beta2", ""])
def test_refuses_other_versions(node: Node, make_plugin: MakePlugin, version: str) -> None:
    """Only v1beta1 is spoken; the refusal names both versions."""
    plugin = make_plugin(node, register=False)
    with pytest.raises(grpc.RpcError, match=r"is not supported by kubelet.*v1beta1"):
        plugin.register(version=version)
    assert plugin.calls == []


@pytest.mark.parametrize(
    "resource",
    ["gpu", "kubernetes.io/gpu", "x.kubernetes.io/gpu", "nvidia.com/", "/gpu", "a b/gpu", "a/b/c"],
)
def test_refuses_illegal_resource_names(node: Node, make_plugin: MakePlugin, resource: str) -> None:
    """A resource name has a domain that is not Kubernetes' own."""
    plugin = make_plugin(node, register=False, resource=resource)
    with pytest.raises(grpc.RpcError, match=f'ResourceName "{resource}" is invalid'):
        plugin.register()


def test_refuses_a_socket_that_nobody_serves(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """Register fails when the dial back does, and kubelet does not try again by itself."""
    node = make_node(dial_timeout=0.2)
    served = make_plugin(node, register=False)
    served.endpoint = "other.sock"
    with pytest.raises(grpc.RpcError, match="failed to dial device plugin"):
        served.register()
    assert node.numbers() == (None, None)


def test_a_list_replaces_the_one_before(node: Node, make_plugin: MakePlugin) -> None:
    """Devices that a later list lacks are gone from capacity as well."""
    plugin = make_plugin(node)
    plugin.send(healthy("a", "x"))
    node.wait_numbers(2, 2)


def test_serves_several_resources(node: Node, make_plugin: MakePlugin) -> None:
    """Each resource has its own plugin and its own numbers."""
    make_plugin(node)
    make_plugin(node, healthy("m1"), resource="nvidia.com/mig-1g.10gb", endpoint="mig.sock")
    assert node.numbers("nvidia.com/mig-1g.10gb") == ("1", "1")
    assert node.numbers() == ("4", "4")


def test_a_later_registration_replaces(node: Node, make_plugin: MakePlugin) -> None:
    """The plugin that registered last is the one that is called."""
    first = make_plugin(node)
    second = make_plugin(node, healthy("x", "y"), endpoint="q.sock")
    node.run(pod("one", 2))
    assert first.allocated == []
    assert second.allocated == [["x", "y"]]


def test_two_streams_overwrite_each_other(node: Node, make_plugin: MakePlugin) -> None:
    """With two live streams of a resource, the last message wins."""
    first = make_plugin(node)
    make_plugin(node, healthy("x", "y"), endpoint="q.sock")
    first.send(healthy("a", "b", "c"))
    node.wait_numbers(3, 3)


def test_a_wiped_socket_is_new(node: Node, make_plugin: MakePlugin) -> None:
    """A re-created kubelet.sock is another file, at which plugins can register at once."""
    socket = node.directory / "kubelet.sock"
    before = socket.stat().st_ino
    node.kubelet.wipe_socket()
    assert socket.stat().st_ino != before
    make_plugin(node)
    wait_until(lambda: node.numbers() == ("4", "4"))
