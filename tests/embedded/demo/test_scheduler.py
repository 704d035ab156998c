"""The embedded kube-scheduler's loop, against the embedded API server over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedded.apiserver import ApiServer
from embedded.kube_scheduler.extender import Extender
from embedded.kube_scheduler.scheduler import Scheduler
from embedded.workload import RESOURCE, SCHEDULER_NAME, ContainerPlan, PodPlan, render_pod
from runtime.kube import KubeClient, connect
from runtime.objects import Pod
from tests.waiting import wait_until

PODS = "/api/v1/namespaces/default/pods"
NODE = {
    "metadata": {"name": "n1"},
    "status": {
        "allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10", RESOURCE: "4"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[KubeClient]:
    """Lend a client of an API server with one node and a scheduler whose extender is dead."""
    server = ApiServer()
    server.start()
    kubeconfig = str(server.write_kubeconfig(tmp_path / "kubeconfig"))
    client = connect(kubeconfig)
    client.post("/api/v1/nodes", NODE)
    scheduler = Scheduler(
        connect(kubeconfig),
        Extender("http://127.0.0.1:1", timeout=1),
        resource=RESOURCE,
        scheduler_name=SCHEDULER_NAME,
    )
    scheduler.start()
    yield client
    scheduler.stop()
    client.close()
    server.stop()


def create(client: KubeClient, name: str, *, cpu: int = 1000, gpus: int = 0) -> None:
    """Create a pod of one container."""
    plan = PodPlan(name, (ContainerPlan("main", gpus, cpu, 10),))
    client.post(PODS, render_pod(plan))


def read(client: KubeClient, name: str) -> Pod:
    """Read a pod."""
    return msgspec.json.decode(client.get(f"{PODS}/{name}"), type=Pod)


def refusal(client: KubeClient, name: str) -> tuple[str | None, str | None]:
    """Return reason and text of its PodScheduled=False condition."""
    for condition in read(client, name).status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason, condition.message
    return None, None


def test_pods_without_gpus_are_bound_without_the_extender(client: KubeClient) -> None:
    """The extender manages one resource; who does not ask for it never meets it."""
    create(client, "a")
    wait_until(lambda: read(client, "a").spec.node_name == "n1", 10, "a is bound")


def test_what_does_not_fit_waits_with_a_reason_and_comes_when_there_is_room(
    client: KubeClient,
) -> None:
    """The condition tells why; a deleted pod makes room, and the waiting one is bound."""
    create(client, "a", cpu=1500)
    wait_until(lambda: read(client, "a").spec.node_name == "n1", 10, "a is bound")
    create(client, "b")
    wanted = ("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
    wait_until(lambda: refusal(client, "b") == wanted, 10, "b is refused")
    client.delete(f"{PODS}/a", {"gracePeriodSeconds": 0})  # as its kubelet would
    wait_until(lambda: read(client, "b").spec.node_name == "n1", 10, "b is bound")


def test_room_is_taken_the_moment_it_is_chosen(client: KubeClient) -> None:
    """Of pods that come at once one takes the room, before its Binding is written."""
    names = [f"large-{number}" for number in range(8)]
    for name in names:
        create(client, name, cpu=1500)
    wait_until(
        lambda: sum(refusal(client, name)[0] == "Unschedulable" for name in names) == 7,
        10,
        "all but one are refused",
    )
    assert sum(read(client, name).spec.node_name == "n1" for name in names) == 1


def test_a_refusal_is_written_once(client: KubeClient) -> None:
    """Events wake a waiting pod, but the same refusal again is no write: its version stays."""
    create(client, "big", cpu=5000)
    wait_until(lambda: refusal(client, "big")[0] == "Unschedulable", 10, "big is refused")
    version = read(client, "big").metadata.resource_version
    for number in range(3):
        labels: dict[str, Any] = {"metadata": {"labels": {"turn": str(number)}}}
        client.patch("/api/v1/nodes/n1", labels)
        create(client, f"small-{number}", cpu=10)
        wait_until(
            lambda number=number: read(client, f"small-{number}").spec.node_name == "n1",  # type: ignore[misc]  # a default binds the loop's value
            10,
            "the small pod is bound",
        )
    assert read(client, "big").metadata.resource_version == version


def test_a_dead_extender_delays_only_gpu_pods(client: KubeClient) -> None:
    """A GPU pod waits with the error as its reason; others are placed meanwhile."""
    create(client, "gpu", gpus=1)
    wait_until(lambda: refusal(client, "gpu")[0] == "SchedulerError", 10, "the error is told")
    create(client, "cpu")
    wait_until(lambda: read(client, "cpu").spec.node_name == "n1", 10, "cpu is bound")
    assert read(client, "gpu").spec.node_name is None


def test_pods_of_other_schedulers_are_counted_but_not_placed(client: KubeClient) -> None:
    """A foreign pod without a node is left alone; one with a node takes its room."""
    plan = PodPlan("foreign", (ContainerPlan("main", 0, 1500, 10),))
    manifest = render_pod(plan)
    manifest["spec"]["schedulerName"] = "other"
    client.post(PODS, {**manifest, "metadata": {**manifest["metadata"], "name": "waiting"}})
    manifest["spec"]["nodeName"] = "n1"
    client.post(PODS, manifest)
    create(client, "late")
    wait_until(lambda: refusal(client, "late")[0] == "Unschedulable", 10, "late is refused")
    assert read(client, "waiting").spec.node_name is None
