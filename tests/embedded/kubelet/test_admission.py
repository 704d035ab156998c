"""The order of admissions, what is visible meanwhile, and when devices become free."""

from __future__ import annotations

import threading

import msgspec
import pytest

from deviceplugin.v1beta1 import api_pb2
from runtime.objects import Pod
from tests.embedded.kubelet.conftest import MakeNode, MakePlugin
from tests.embedded.kubelet.node import Node, container, pod
from tests.embedded.kubelet.plugin import GPU, healthy, with_env
from tests.waiting import wait_until


def terminating(of: Pod) -> Pod:
    """Return the pod with a deletion time."""
    metadata = msgspec.structs.replace(of.metadata, deletion_timestamp="2026-01-01T00:01:00Z")
    return msgspec.structs.replace(of, metadata=metadata)


def test_a_batch_is_sorted_by_creation(node: Node, make_plugin: MakePlugin) -> None:
    """Within one batch the pod that was created first is admitted first."""
    seen: list[str] = []

    def prefer(free: list[str], _must: list[str], size: int) -> list[str]:
        seen.extend(name for name, held in node.listed().items() if held == {"main": []})
        return sorted(free)[:size]

    make_plugin(node, prefer=prefer)
    pods = [pod(f"p{n}", created=f"2026-01-01T00:00:0{n}Z") for n in (3, 1, 2)]
    node.bind(*pods, batch=True)
    for each in pods:
        node.wait_phase(each, "Running")
    assert seen == ["p1", "p2", "p3"]


def test_list_shows_exactly_the_pod_in_admission(node: Node, make_plugin: MakePlugin) -> None:
    """During GetPreferredAllocation, List shows one pod without devices: the one that is asked for.

    Earlier pods show theirs, later ones of the batch are absent.
    """
    seen: list[dict[str, dict[str, list[str]]]] = []

    def prefer(free: list[str], _must: list[str], size: int) -> list[str]:
        seen.append(node.listed())
        return sorted(free)[:size]

    make_plugin(node, prefer=prefer)
    pods = [pod(f"p{n}", created=f"2026-01-01T00:00:0{n}Z") for n in range(3)]
    node.bind(*pods, batch=True)
    for each in pods:
        node.wait_phase(each, "Running")
    assert seen == [
        {"p0": {"main": []}},
        {"p0": {"main": ["a"]}, "p1": {"main": []}},
        {"p0": {"main": ["a"]}, "p1": {"main": ["b"]}, "p2": {"main": []}},
    ]


def test_list_shows_the_devices_once_allocate_has_answered(
    node: Node, make_plugin: MakePlugin
) -> None:
    """The devices are in List before the container starts."""
    ready = threading.Event()

    def hold(_: list[str]) -> None:
        assert ready.wait(10)

    make_plugin(node, healthy("a"), pre_start=hold)
    one = pod("one")
    node.bind(one)
    wait_until(lambda: node.listed() == {"one": {"main": ["a"]}})
    assert node.views(one) == []
    ready.set()
    node.wait_phase(one, "Running")


def test_admissions_are_strictly_serial(node: Node, make_plugin: MakePlugin) -> None:
    """A slow Allocate holds up every other pod of the node, also one without devices."""
    go = threading.Event()
    entered = threading.Event()

    def slow(devices: list[str]) -> api_pb2.AllocateResponse:
        entered.set()
        assert go.wait(10)
        return with_env(devices)

    make_plugin(node, answer=slow)
    slow_one, other = pod("slow"), pod("other", None)
    node.bind(slow_one, other)
    assert entered.wait(10)
    assert "other" not in node.listed()
    go.set()
    node.wait_phase(slow_one, "Running")
    node.wait_phase(other, "Running")


def test_an_unknown_resource_is_no_obstacle(node: Node) -> None:
    """A pod of a resource that was never registered runs without devices."""
    one = pod("one", 2)
    node.run(one)
    assert node.views(one)[0].devices == ()


def test_a_late_resource_is_allocated_at_the_next_start(
    node: Node, make_plugin: MakePlugin
) -> None:
    """A pod admitted before its resource was known gets devices when its container restarts."""
    one = pod("one", 2)
    node.run(one)
    plugin = make_plugin(node)
    assert plugin.allocated == []
    node.kubelet.crash_container("default", "one", "main")
    wait_until(lambda: len(node.views(one)) == 2)
    assert len(node.devices(one)) == 2
    assert plugin.allocated == [node.devices(one)]


def test_counting_comes_after_allocate(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that does not fit by number is refused although Allocate went well."""
    node.run(pod("unknowing", 1))  # counts for one GPU, and holds none
    plugin = make_plugin(node, healthy("a"))
    one = pod("one", 1)
    node.bind(one)
    status = node.wait_phase(one, "Failed")
    assert status["reason"] == f"OutOf{GPU}"
    assert "requested: 1, used: 1, capacity: 1" in status["message"]
    assert plugin.allocated == [["a"]]


@pytest.mark.parametrize(
    ("settings", "limits", "reason"),
    [
        ({"cpu": "2"}, {"cpu": "1500m"}, "OutOfcpu"),
        ({"memory": "4Gi"}, {"memory": "3Gi"}, "OutOfmemory"),
        ({"pods": 1}, {}, "OutOfpods"),
    ],
)
def test_the_machine_is_counted_too(
    make_node: MakeNode, settings: dict[str, str], limits: dict[str, str], reason: str
) -> None:
    """CPU, memory and the number of pods are checked at admission as well."""
    node = make_node(**settings)
    first, second = (
        pod(name, containers=[container(gpus=None, limits=limits)]) for name in ("one", "two")
    )
    node.run(first)
    node.bind(second)
    assert node.wait_phase(second, "Failed")["reason"] == reason


def test_freed_by_the_next_admission(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that has ended keeps its devices in the books until the next pod is admitted."""
    make_plugin(node, healthy("a"))
    short, later = pod("short", run_seconds="0"), pod("later")
    node.bind(short)
    node.wait_phase(short, "Succeeded")
    node.run(later)
    assert node.devices(later) == node.devices(short) == ["a"]


def test_freed_when_deleted(node: Node, make_plugin: MakePlugin) -> None:
    """A deleted pod's containers end and its devices go to the next pod."""
    make_plugin(node, healthy("a"))
    first, second = pod("first"), pod("second")
    node.run(first)
    node.remove(first)
    node.run(second)
    assert not node.views(first)[0].running
    assert node.devices(second) == ["a"]


def test_a_terminating_pod_is_stopped_and_removed(node: Node, make_plugin: MakePlugin) -> None:
    """A pod with a deletion time ends, and kubelet deletes it at the API server."""
    make_plugin(node, healthy("a"))
    one = pod("one")
    node.run(one)
    node.change(terminating(one))
    wait_until(lambda: node.api.deleted == ["/api/v1/namespaces/default/pods/one"])
    assert not node.views(one)[0].running


def test_rejected_pods_hold_nothing(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that was refused is not in List."""
    make_plugin(node)
    big = pod("big", 5)
    node.bind(big)
    node.wait_phase(big, "Failed")
    assert node.listed() == {}


def test_an_unreadable_amount_fails_the_pod(node: Node, make_plugin: MakePlugin) -> None:
    """A limit that is no quantity fails its pod and no other."""
    make_plugin(node)
    bad = pod("bad", "many")
    node.bind(bad)
    assert "nvidia.com/gpu: 'many' is not a quantity" in node.wait_phase(bad, "Failed")["message"]
    node.run(pod("good"))


def test_a_list_in_allocate_loses_the_devices(node: Node, make_plugin: MakePlugin) -> None:
    """Up to 1.37: List while an Allocate is in flight and a pod has ended gives a GPU twice."""
    entered, go = threading.Event(), threading.Event()

    def slow(devices: list[str]) -> api_pb2.AllocateResponse:
        entered.set()
        assert go.wait(10)
        return with_env(devices)

    plugin = make_plugin(node, healthy("a", "b"), prefer=lambda free, _, n: sorted(free)[:n])
    ended, first, second = pod("ended"), pod("first"), pod("second")
    node.run(ended)
    plugin.answer = slow
    node.bind(first)
    assert entered.wait(10)
    node.kubelet.finish_pod("default", "ended")
    node.wait_phase(ended, "Succeeded")
    node.listed()
    go.set()
    node.wait_phase(first, "Running")
    plugin.prefer = lambda free, _, n: sorted(free, reverse=True)[:n]
    node.run(second)
    assert node.devices(first) == node.devices(second) == ["b"]


def test_a_list_before_allocate_is_safe(node: Node, make_plugin: MakePlugin) -> None:
    """List during GetPreferredAllocation loses nothing, though a pod has ended."""
    entered, go = threading.Event(), threading.Event()

    def slow(free: list[str], _must: list[str], size: int) -> list[str]:
        entered.set()
        assert go.wait(10)
        return sorted(free)[:size]

    plugin = make_plugin(node, healthy("a", "b"), prefer=lambda free, _, n: sorted(free)[:n])
    ended, first, second = pod("ended"), pod("first"), pod("second")
    node.run(ended)
    plugin.prefer = slow
    node.bind(first)
    assert entered.wait(10)
    node.kubelet.finish_pod("default", "ended")
    node.wait_phase(ended, "Succeeded")
    node.listed()
    go.set()
    node.run(second)
    assert node.devices(first) != node.devices(second)
