"""What kubelet writes to the API server."""

from __future__ import annotations

from deviceplugin.v1beta1 import api_pb2
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, pod
from tests.embedded.kubelet.plugin import GPU, healthy
from tests.waiting import wait_until


def sick(*names: str) -> list[api_pb2.Device]:
    """List unhealthy devices."""
    return [api_pb2.Device(ID=name, health="Unhealthy") for name in names]


def test_the_node_object_is_made(make_node: MakeNode) -> None:
    """A new node has its labels, its machine's numbers, and is ready."""
    node = make_node(cpu="8", memory="32Gi", pods=20, labels={"zone": "z1"})
    node.wait_numbers(8, 8, "cpu")
    made = node.api.objects["/api/v1/nodes/n1"]
    assert made["metadata"]["labels"] == {"zone": "z1", "kubernetes.io/hostname": "n1"}
    assert made["status"]["capacity"] == {"cpu": "8", "memory": "32Gi", "pods": "20"}
    assert [(c["type"], c["status"]) for c in made["status"]["conditions"]] == [("Ready", "True")]


def test_an_existing_node_is_taken_over(node: Node, make_plugin: MakePlugin) -> None:
    """A restarted kubelet keeps what others wrote to its node."""
    make_plugin(node)
    node.api.objects["/api/v1/nodes/n1"]["metadata"]["annotations"] = {"other": "stays"}
    node.restart()
    node.wait_numbers(0, 0)
    assert node.api.objects["/api/v1/nodes/n1"]["metadata"]["annotations"] == {"other": "stays"}


def test_a_deleted_node_is_made_again(make_node: MakeNode, make_plugin: MakePlugin) -> None:
    """When the node object is gone, the next change creates it."""
    node = make_node()
    plugin = make_plugin(node)
    del node.api.objects["/api/v1/nodes/n1"]
    plugin.send(healthy("a"))
    node.wait_numbers(1, 1)


def test_a_sick_device_lowers_allocatable_only(node: Node, make_plugin: MakePlugin) -> None:
    """An unhealthy device counts for capacity and not for allocatable, and comes back."""
    plugin = make_plugin(node)
    plugin.send([*healthy("a", "b", "c"), *sick("d")])
    node.wait_numbers(4, 3)
    plugin.send(healthy("a", "b", "c", "d"))
    node.wait_numbers(4, 4)


def test_a_device_that_falls_sick_in_use_changes_no_pod(
    node: Node, make_plugin: MakePlugin
) -> None:
    """The pod runs on; allocatable drops by one; the pod's status shows the device's health."""
    plugin = make_plugin(node, healthy("a"))
    one = pod("one")
    node.run(one)
    plugin.send(sick("a"))
    node.wait_numbers(1, 0)
    wanted = [{"name": GPU, "resources": [{"resourceID": "a", "health": "Unhealthy"}]}]
    wait_until(
        lambda: node.status(one)["containerStatuses"][0]["allocatedResourcesStatus"] == wanted
    )
    assert node.status(one)["phase"] == "Running"
    assert node.views(one)[0].running


def test_a_vanished_device_keeps_its_health(node: Node, make_plugin: MakePlugin) -> None:
    """A device that leaves the list in use keeps its last reported health in the pod's status."""
    plugin = make_plugin(node, healthy("a", "b"), prefer=lambda *_: ["a"])
    one = pod("one")
    node.run(one)
    plugin.send(healthy("b"))
    node.wait_numbers(1, 1)
    shown = node.status(one)["containerStatuses"][0]["allocatedResourcesStatus"]
    assert shown[0]["resources"] == [{"resourceID": "a", "health": "Healthy"}]


def test_what_is_not_healthy_is_unhealthy(node: Node, make_plugin: MakePlugin) -> None:
    """Any health but Healthy counts as unhealthy."""
    odd = [api_pb2.Device(ID=name, health=name) for name in ("healthy", "Unknown", "")]
    make_plugin(node, [*healthy("a"), *odd])
    assert node.numbers() == ("4", "1")


def test_a_running_pod_says_so(node: Node, make_plugin: MakePlugin) -> None:
    """A running pod has a start time, ready conditions and its containers' state."""
    make_plugin(node)
    one = pod("one")
    node.run(one)
    status = node.status(one)
    assert status["startTime"].endswith("Z")
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
    assert status["containerStatuses"][0]["ready"] is True
    assert "running" in status["containerStatuses"][0]["state"]


def test_statuses_wait_for_the_api_server(node: Node, make_plugin: MakePlugin) -> None:
    """What happens while the API server is away is told when it is back."""
    plugin = make_plugin(node)
    node.api.away = True
    one, big = pod("one"), pod("big", 9)
    node.bind(one, big)
    plugin.send(healthy("a", "b", "c"))
    wait_until(lambda: node.kubelet.journal.entries("rejected"))
    wait_until(lambda: node.views(one))
    assert node.status(one)["phase"] == "Pending"
    node.api.away = False
    node.wait_phase(one, "Running")
    node.wait_phase(big, "Failed")
    node.wait_numbers(3, 3)


def test_a_pod_of_the_same_name_is_another(node: Node) -> None:
    """A status of a deleted pod never reaches a new pod of the same name."""
    old, new = pod("same", None), pod("same", None, phase="Unscheduled")
    node.run(old)
    node.remove(old)
    node.api.objects["/api/v1/namespaces/default/pods/same"] = {
        "metadata": {"uid": new.metadata.uid},
        "status": {"phase": "Unscheduled"},
    }
    node.run(pod("other", None))
    assert node.status(new)["phase"] == "Unscheduled"


def test_nothing_is_written_when_nothing_changes(make_node: MakeNode) -> None:
    """An idle kubelet writes nothing, however often it looks."""
    node = make_node(status_period=0.01)
    node.run(pod("one", None))
    wait_until(lambda: node.kubelet.journal.entries("container-started"))
    before = node.api.tries
    looks = node.kubelet.journal.entries()
    wait_until(lambda: node.kubelet.journal.entries() == looks)
    assert node.api.tries == before
