"""What the dashboard is looked at with: a small cluster that lives, and a large one that stands."""

from __future__ import annotations

import contextlib
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from embedded.apiserver import ApiServer
from embedded.cluster import Cluster, NodeSpec
from embedded.ports import free_port
from embedded.session import create_due
from embedded.workload import NAMESPACE, ContainerPlan, PodPlan
from runtime.kube import KubeClient, connect
from tests.e2e.process import Process
from tests.scheduler.nodes import bridged, node_object, pcie, switched
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.wire import MIN_LINK_KEY, NodeState

AMOUNTS: Final = {"cpu": "96", "memory": "1Ti", "pods": "110"}

START_SECONDS: Final = 180.0

TOKEN: Final = "a token of the tests"  # noqa: S105 -- no secret


class Living:
    """A small cluster with everything in it: daemons, kubelets, a scheduler, and pods."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = cluster.explain_url

    def create(self, name: str, gpus: int, **annotations: str) -> None:
        """Create a pod."""
        plan = PodPlan(name, (ContainerPlan("main", gpus, 1000, 1024),), dict(annotations))
        backlog = [plan]
        create_due(self.cluster.client, backlog)
        assert not backlog

    def delete(self, prefix: str) -> None:
        """Delete the pods whose names begin so."""
        for pod in self.cluster.observation.pods().values():
            if pod.metadata.name.startswith(prefix):
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.metadata.name}"
                self.cluster.client.delete(path)

    def settle(self) -> None:
        """Wait until nothing is tried any more, and what is bound runs."""
        pods = self.cluster.observation.pods

        def settled() -> bool:
            starting = (p for p in pods().values() if p.spec.node_name and not p.finished)
            return self.cluster.scheduler.idle and all(
                p.status.phase == "Running" for p in starting
            )

        wait_until(settled, timeout=60)


@contextlib.contextmanager
def living(machines: Sequence[str]) -> Iterator[Living]:
    """Start a cluster of these machines."""
    specs = [
        NodeSpec(f"n{number:02}", load_machine(name), name)
        for number, name in enumerate(machines, 1)
    ]
    cluster = Cluster(specs, logs=None)
    cluster.start(START_SECONDS, lambda _: None, threading.Event())
    try:
        yield Living(cluster)
    finally:
        cluster.stop()


def furnish(site: Living) -> None:
    """Fill a cluster so that each page has something to show, with room left and pods waiting."""
    for number, gpus in enumerate((4, 2, 8, 1, 2, 4, 1, 4, 2)):
        site.create(f"train-{number}", gpus)
    site.settle()
    site.create("too-large", 8, **{MIN_LINK_KEY: "NV"})
    site.create("larger-than-any-node", 16)
    site.settle()


class Standing:
    """An extender with a token, over an API server that has nodes and nothing that runs them."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._api = ApiServer()
        self._extender: Process | None = None
        self._client: KubeClient | None = None
        self._ops = free_port()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._explain = port

    def start(self) -> None:
        """Start it, and wait until all nodes are known."""
        self._api.start()
        kubeconfig = self._api.write_kubeconfig(self._folder / "kubeconfig")
        self._client = connect(str(kubeconfig))
        for number in range(self._count):
            topology = (switched(8), bridged(4), pcie(4))[number % 3]
            gone = tuple(f"GPU-{gpu}" for gpu in range(number % (len(topology.gpus) + 1)))
            state = NodeState(1, allocations={"a pod": gone} if gone else {})
            node = node_object(f"node-{number:04}", topology, state, amounts=AMOUNTS)
            self._client.post("/api/v1/nodes", node)
        (self._folder / "token").write_text(TOKEN)
        (self._folder / "extender.yaml").write_text(
            f"explain:\n  host: 127.0.0.1\n  port: {self._explain}\n"
            f"  token_file: {self._folder / 'token'}\n"
        )
        self._extender = Process(
            "extender",
            [
                *(sys.executable, "-m", "cli.main", "extender"),
                *("--config", str(self._folder / "extender.yaml")),
                *("--kubeconfig", str(kubeconfig)),
                *("--port", "0", "--ops-port", str(self._ops), "--ops-host", "127.0.0.1"),
            ],
            self._folder / "extender.log",
        )
        self._extender.start()
        self._extender.wait_for(self._ready)

    def stop(self) -> None:
        """Stop everything."""
        if self._extender is not None:
            self._extender.stop()
        if self._client is not None:
            self._client.close()
        self._api.stop()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ops}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False
