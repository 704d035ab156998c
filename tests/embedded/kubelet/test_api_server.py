"""The kubelet against the embedded API server: pods by watch, statuses by patch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedded.apiserver import ApiServer
from embedded.kubelet import Kubelet
from runtime.errors import NotFoundError
from runtime.kube import KubeClient, connect
from tests.embedded.kubelet.plugin import GPU, Plugin, healthy
from tests.waiting import wait_until


class Cluster:
    """An API server, its kubelets, and a client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = ApiServer()
        self.server.start()
        self.client: KubeClient = connect(str(self.server.write_kubeconfig(root / "kc")))
        self.kubelets: list[Kubelet] = []
        self.plugins: list[Plugin] = []

    def add_node(self, name: str, **settings: Any) -> Kubelet:
        """Start a node with four GPUs."""
        kubelet = Kubelet(name, self.root / name, self.client, **settings)
        self.kubelets.append(kubelet)
        kubelet.start()
        plugin = Plugin(kubelet.device_plugins_dir, healthy("a", "b", "c", "d")).serve()
        self.plugins.append(plugin)
        plugin.register()
        # A pod that came before the first list would run without devices.
        wait_until(lambda: self.allocatable(name) == "4", what=f"GPUs of {name}")
        return kubelet

    def bind(self, name: str, node: str, gpus: int, **metadata: Any) -> None:
        """Create a pod that is bound already."""
        resources = {"limits": {GPU: str(gpus)}}
        self.client.post(
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", **metadata},
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": "main", "image": "x", "resources": resources}],
                },
            },
        )

    def get(self, path: str) -> dict[str, Any]:
        """Read an object; {} if there is none."""
        try:
            found: dict[str, Any] = msgspec.json.decode(self.client.get(path))
        except NotFoundError:
            return {}
        return found

    def phase(self, name: str) -> str | None:
        """Return a pod's phase."""
        status = self.get(f"/api/v1/namespaces/default/pods/{name}").get("status", {})
        phase: str | None = status.get("phase")
        return phase

    def allocatable(self, node: str) -> str | None:
        """Return a node's allocatable GPUs."""
        status = self.get(f"/api/v1/nodes/{node}").get("status", {})
        count: str | None = status.get("allocatable", {}).get(GPU)
        return count

    def close(self) -> None:
        """End everything."""
        for part in (*self.kubelets, *self.plugins):
            part.stop()
        self.client.close()
        self.server.stop()


@pytest.fixture
def cluster(root: Path) -> Iterator[Cluster]:
    """Make an empty cluster."""
    made = Cluster(root)
    yield made
    made.close()


def test_a_bound_pod_runs(cluster: Cluster) -> None:
    """A pod bound to the node is admitted, runs, and says so at the API server."""
    kubelet = cluster.add_node("n1")
    cluster.bind("one", "n1", 2)
    wait_until(lambda: cluster.phase("one") == "Running")
    assert len(kubelet.containers()[0].env["NVIDIA_VISIBLE_DEVICES"].split(",")) == 2


def test_pods_of_other_nodes_are_not_taken(cluster: Cluster) -> None:
    """A kubelet sees the pods of its own node only."""
    first, second = cluster.add_node("n1"), cluster.add_node("n2")
    cluster.bind("one", "n2", 1)
    wait_until(lambda: cluster.phase("one") == "Running")
    assert first.containers() == ()
    assert [view.pod for view in second.containers()] == ["one"]


def test_a_pod_comes_to_its_end(cluster: Cluster) -> None:
    """A pod with a run time ends Succeeded at the API server."""
    cluster.add_node("n1")
    cluster.bind("one", "n1", 1, annotations={"embedded.gputopo.dev/run-seconds": "0.05"})
    wait_until(lambda: cluster.phase("one") == "Succeeded")


def test_a_deleted_pod_is_forgotten(cluster: Cluster) -> None:
    """A deleted pod's container ends."""
    kubelet = cluster.add_node("n1")
    cluster.bind("one", "n1", 1)
    wait_until(lambda: cluster.phase("one") == "Running")
    cluster.client.delete("/api/v1/namespaces/default/pods/one")
    wait_until(lambda: not kubelet.containers()[0].running)
    wait_until(lambda: cluster.phase("one") is None)


def test_an_api_server_that_went_away(cluster: Cluster) -> None:
    """A plugin that died while the API server was away shows when it is back; pods go on."""
    kubelet = cluster.add_node("n1")
    cluster.bind("one", "n1", 1)
    wait_until(lambda: cluster.phase("one") == "Running")
    cluster.server.go_away()
    cluster.plugins[0].end_streams()
    wait_until(lambda: kubelet.journal.entries("trouble"))
    cluster.server.come_back()
    wait_until(lambda: cluster.allocatable("n1") == "0")
    cluster.plugins[0].register()
    wait_until(lambda: cluster.allocatable("n1") != "0")
    cluster.bind("two", "n1", 1)
    wait_until(lambda: cluster.phase("two") == "Running")
    assert kubelet.containers()[0].running


def test_a_restarted_kubelet_finds_its_pods(cluster: Cluster) -> None:
    """After a restart the pods come from the API server again, and the running one runs on."""
    kubelet = cluster.add_node("n1")
    cluster.bind("one", "n1", 1)
    wait_until(lambda: cluster.phase("one") == "Running")
    kubelet.restart()
    wait_until(lambda: len(kubelet.journal.entries("admitted")) == 2)
    assert cluster.phase("one") == "Running"
    assert [view.attempt for view in kubelet.containers()] == [0]


def test_a_kubelet_is_cheap(cluster: Cluster) -> None:
    """Each kubelet with a plugin takes a handful of threads, so that 24 fit a process."""
    cluster.add_node("n0")
    before = threading.active_count()
    cluster.add_node("n1")
    own = [t.name for t in threading.enumerate() if t.name.startswith(("n1-", "list-"))]
    assert threading.active_count() - before <= 16, own


def test_stopping_ends_the_threads(cluster: Cluster) -> None:
    """A stopped kubelet leaves no thread of its own."""
    kubelet = cluster.add_node("n1")
    kubelet.stop()
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("n1-")],
        what="no thread of n1",
    )
