"""The contract's cluster, made of the embedded API server, kubelets and kube-scheduler."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from embedded.apiserver import ApiServer
from embedded.kube_scheduler.election import Election, Terms
from embedded.kube_scheduler.extender import Extender
from embedded.kube_scheduler.queue import Backoff
from embedded.kube_scheduler.scheduler import Scheduler
from embedded.kubelet import Kubelet
from mock_nvml import write_sysfs
from runtime.kube import KubeClient, connect
from tests.contract.api_side import LEASE, PLUGIN_SETTINGS, ApiSide
from tests.contract.cluster import MACHINES, RESOURCE, Sets
from tests.contract.pair import HTTP_SECONDS, ApiAccess, Pair
from tests.contract.plugin_process import PluginProcess
from topology.catalogue import load_machine

TERMS: Final = Terms(lease=3, renew=2.0, retry=0.3)
BACKOFF: Final = Backoff(initial=0.5, maximum=2.0)


class EmbeddedCluster(ApiSide):
    """`tests.contract.cluster.Cluster` without Kubernetes."""

    kind = "embedded"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._undo: list[Callable[[], object]] = [lambda: shutil.rmtree(self._folder)]
        self._api = ApiServer()
        self._api.start()
        self._undo.append(self._api.stop)
        self._kubeconfig = self._api.write_kubeconfig(self._folder / "kubeconfig")
        faults = {node: self._folder / f"{node}.faults" for node in MACHINES}
        super().__init__(self._connect(self._kubeconfig), faults)
        self._kubelets: dict[str, Kubelet] = {}

    def start(self) -> None:
        """Start everything; `settle` waits for it."""
        (self._folder / "plugin.yaml").write_bytes(msgspec.yaml.encode(PLUGIN_SETTINGS))
        for node in MACHINES:
            self._start_node(node)
        access = ApiAccess(self._api.url, "embedded")
        for name in ("a", "b"):
            pair = Pair(
                name, self._folder / name, scheduler=access, extender=access, launch=self._launch
            )
            self._pairs.append(pair)
            self._undo.append(pair.stop)
            pair.start()
        stock = Scheduler(
            self._connect(self._kubeconfig),
            None,
            resource=RESOURCE,
            scheduler_name="default-scheduler",
            backoff=BACKOFF,
        )
        stock.start()
        self._undo.append(stock.stop)

    def running(self) -> dict[str, Sets]:
        """Map each pod to its running containers, and each to the GPUs its environment names."""
        found: dict[str, dict[str, frozenset[str]]] = {}
        for kubelet in self._kubelets.values():
            for view in kubelet.containers():
                if view.running:
                    visible = view.env.get("NVIDIA_VISIBLE_DEVICES", "")
                    gpus = self.called(visible.split(",") if visible else ())
                    found.setdefault(view.pod, {})[view.container] = gpus
        return found

    def stop_api(self) -> None:
        """Take the API server away from everybody."""
        self._api.go_away()

    def start_api(self) -> None:
        """Let the API server come back."""
        self._api.come_back()

    def forget_history(self) -> None:
        """Let the API server forget all changes so far."""
        self._api.compact()

    def close(self) -> None:
        """End everything."""
        self._api.come_back()
        while self._undo:
            self._undo.pop()()

    def _connect(self, kubeconfig: Path) -> KubeClient:
        client = connect(str(kubeconfig))
        self._undo.append(client.close)
        return client

    def _launch(self, kubeconfig: Path, extender: str) -> Scheduler:
        client = self._connect(kubeconfig)
        scheduler = Scheduler(
            client,
            Extender(extender, timeout=HTTP_SECONDS),
            resource=RESOURCE,
            scheduler_name="gputopo",
            election=Election(client, LEASE, f"embedded_{len(self._undo)}", terms=TERMS),
            backoff=BACKOFF,
        )
        scheduler.start()
        return scheduler

    def _start_node(self, node: str) -> None:
        # Unix socket paths are short, so are these names.
        root = self._folder / node
        write_sysfs(load_machine(MACHINES[node]), root / "sys", seed=node)
        kubelet = Kubelet(node, root, self._connect(self._kubeconfig), status_period=0.05)
        self._kubelets[node] = kubelet
        kubelet.start()
        self._undo.append(kubelet.stop)
        self._faults[node].write_text("[]")
        plugin = PluginProcess(
            {
                "node-name": node,
                "kubeconfig": self._kubeconfig,
                "config": self._folder / "plugin.yaml",
                "device-plugins-dir": kubelet.device_plugins_dir,
                "pod-resources-socket": kubelet.pod_resources_socket,
                "sysfs-root": root / "sys",
                "mock-machine": MACHINES[node],
                "mock-faults": self._faults[node],
            },
            self._folder / f"{node}.log",
        )
        self._undo.append(lambda: plugin.end(signal.SIGTERM))
