"""The extender's process over a real Prometheus: it follows the samples, and outlives their end."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from runtime.kube import KubeClient, connect
from tests.e2e.process import Process
from tests.e2e.prometheus import Exporter, Prometheus
from tests.scheduler.nodes import mesh, node_object, pod_object
from tests.waiting import wait_until

NAMES = ("n1", "n2", "n3")
CONFIG = """
load:
  prometheus: {{url: "{url}", timeout_seconds: 1}}
  metrics_api: false
  refresh_seconds: 0.5
  stale_seconds: 30
  weights: {{gpu: 1}}
  breaker: {{failures: 2, first_pause_seconds: 0.5, last_pause_seconds: 1}}
profiles:
  idle: {{weights: {{load: 1}}}}
default_profile: idle
"""


def busy(node: str, percent: int) -> str:
    """Say what a node's dcgm-exporter would of its one GPU."""
    return f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-{node}",Hostname="{node}"}} {percent}\n'


class Site:
    """Three nodes, what their GPUs have to do, a Prometheus, an API server and our daemon."""

    def __init__(self, folder: Path) -> None:
        self.gpus = {name: Exporter(folder, name, {}, busy(name, 50)) for name in NAMES}
        self.prometheus = Prometheus(folder, self.gpus)
        self._api = ApiServer()
        self._folder = folder
        self._port, self._ops = free_port(), free_port()
        self._extender: Process | None = None
        self._client: KubeClient | None = None
        self._pod: dict[str, Any] = {}

    def start(self) -> None:
        """Start everything, and wait until the extender is ready."""
        for exporter in self.gpus.values():
            exporter.start()
        self.prometheus.start()
        self._api.start()
        kubeconfig = self._api.write_kubeconfig(self._folder / "kubeconfig")
        self._client = connect(str(kubeconfig))
        for name in NAMES:
            self._client.post("/api/v1/nodes", node_object(name, mesh(4)))
        pods = "/api/v1/namespaces/default/pods"
        self._pod = json.loads(self._client.post(pods, pod_object("p", 1)))
        config = self._folder / "extender.yaml"
        config.write_text(CONFIG.format(url=self.prometheus.url))
        command = [
            *(sys.executable, "-m", "cli.main", "extender"),
            *("--config", str(config), "--kubeconfig", str(kubeconfig)),
            *("--port", str(self._port), "--ops-port", str(self._ops), "--explain-port", "0"),
        ]
        self._extender = Process("extender", command, self._folder / "extender.log")
        self._extender.start()
        self._extender.wait_for(lambda: self._get("/readyz") is not None)

    def stop(self) -> None:
        """Stop everything."""
        if self._extender is not None:
            self._extender.stop()
        if self._client is not None:
            self._client.close()
        self._api.stop()
        self.prometheus.process.stop()
        for exporter in self.gpus.values():
            exporter.process.stop()

    def show(self, **percent: int) -> None:
        """Let the GPUs have this much to do."""
        for name, number in percent.items():
            self.gpus[name].show(busy(name, number))

    def chosen(self) -> list[str]:
        """Return the nodes that the extender gives the pod; the answer is never an error."""
        body = json.dumps({"Pod": self._pod, "NodeNames": list(NAMES)}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/filter", data=body)
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 -- our own daemon
            told = json.load(answer)
        assert told["Error"] == ""
        names: list[str] = told["NodeNames"]
        return names

    def shows(self, line: str) -> bool:
        """Return whether the extender's metrics have this line."""
        return f"gputopo_extender_load_{line}\n" in (self._get("/metrics") or "")

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ops}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return None


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """Return a site where everything runs."""
    made = Site(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def circuit(state: str) -> str:
    """Return the metric's line for a circuit in this state."""
    return f'circuit{{source="prometheus",state="{state}"}} 1.0'


def test_the_idlest_gpus_win(site: Site) -> None:
    """Within a scrape and a round after they have become so."""
    site.show(n1=90, n2=5, n3=50)
    wait_until(lambda: site.chosen() == ["n2"], 60, "n2")
    site.show(n1=10, n2=95, n3=50)
    wait_until(lambda: site.chosen() == ["n1"], 60, "n1")
    assert site.shows('nodes{metric="gpu"} 3.0')


def test_a_prometheus_that_hangs_costs_no_decision(site: Site) -> None:
    """It is given up, its circuit opens, and its last samples are used until they are old."""
    site.show(n1=10, n2=95, n3=50)
    wait_until(lambda: site.chosen() == ["n1"], 60, "n1")
    site.prometheus.process.pause()
    try:
        wait_until(lambda: site.shows(circuit("open")), 60, "an open circuit")
        assert site.chosen() in (["n1"], list(NAMES))
        wait_until(lambda: site.shows('nodes{metric="gpu"} 0.0'), 60, "old samples")
        assert site.chosen() == list(NAMES)
    finally:
        site.prometheus.process.resume()
    wait_until(lambda: site.shows(circuit("closed")), 60, "a closed circuit")
    wait_until(lambda: site.chosen() == ["n1"], 60, "n1")


def test_a_prometheus_that_is_killed_and_comes_back(site: Site) -> None:
    """The extender goes on, and follows the samples again."""
    site.prometheus.process.kill()
    wait_until(lambda: site.shows(circuit("open")), 60, "an open circuit")
    assert site.chosen()
    site.show(n1=90, n2=50, n3=5)
    site.prometheus.start()
    wait_until(lambda: site.chosen() == ["n3"], 60, "n3")
    assert site.shows(circuit("closed"))


def test_an_exporter_that_lies_is_not_believed(site: Site) -> None:
    """More than all, and less than nothing: the other two nodes decide."""
    site.gpus["n3"].show(busy("n3", -40))
    site.show(n1=90, n2=20)
    wait_until(lambda: site.chosen() == ["n2"], 60, "n2")
