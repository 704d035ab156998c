"""The contract's cluster, made of etcd, kube-apiserver, kube-schedulers, kubelets, our bundle."""

from __future__ import annotations

import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from embedded.ports import free_port
from mock_nvml import write_sysfs
from runtime.kube import connect
from tests.contract.api_side import PLUGIN_SETTINGS, ApiSide
from tests.contract.cluster import MACHINES, NAMESPACE, Sets
from tests.contract.pair import HTTP_SECONDS, ApiAccess, KubeScheduler, Pair
from tests.contract.plugin_process import PluginProcess
from tests.e2e.components import binary_folder
from tests.e2e.control_plane import ControlPlane
from tests.e2e.cri import FakeRuntime
from tests.e2e.kubelet import Kubelet
from tests.e2e.logs import keep_logs
from tests.e2e.process import Process
from topology.catalogue import load_machine

DAEMONSET: Final = Path(__file__).parents[2] / "daemonset"
BUNDLE: Final = DAEMONSET / "overlays" / "second-scheduler"
CONFIG: Final = DAEMONSET / "components" / "second-scheduler" / "config" / "kube-scheduler.yaml"
SYSTEM: Final = "gputopo-system"


class RealCluster(ApiSide):
    """`tests.contract.cluster.Cluster` on real components, each daemon with the bundle's rights.

    The cluster's own kube-scheduler runs beside the two pairs. Logs are kept if, when the cluster
    ends, something has `failed`.
    """

    kind = "real"
    lease_namespace = SYSTEM

    def __init__(self, *, failed: Callable[[], bool] = lambda: True) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._failed = failed
        self._undo: list[Callable[[], object]] = [lambda: shutil.rmtree(self._folder)]
        self._runtimes: dict[str, FakeRuntime] = {}
        self._kubelets: dict[str, Kubelet] = {}
        self._plane = ControlPlane(self._folder, nodes=list(MACHINES), scheduler=True)
        try:
            self._plane.start()
            self._undo.append(self._plane.stop)
            client = connect(str(self._plane.kubeconfig()))
        except BaseException:
            self.close()
            raise
        self._undo.append(client.close)
        super().__init__(client, {node: self._folder / f"{node}.faults" for node in MACHINES})

    def start(self) -> None:
        """Start everything; `settle` waits for it."""
        plane = self._plane
        plane.kubectl("apply", "-k", str(BUNDLE))
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.make_account(NAMESPACE)
        (self._folder / "plugin.yaml").write_bytes(msgspec.yaml.encode(PLUGIN_SETTINGS))
        for node in MACHINES:
            self._start_kubelet(node)
        for node in MACHINES:
            plane.await_node(node)
            self._start_plugin(node)
        token = plane.service_account(SYSTEM, "gputopo-scheduler")
        trust = ssl.create_default_context(cafile=str(self._folder / "pki" / "apiserver.crt"))
        access = ApiAccess(plane.url, token, trust)
        for name in ("a", "b"):
            pair = Pair(
                name, self._folder / name, scheduler=access, extender=access, launch=self._launch
            )
            self._pairs.append(pair)
            self._undo.append(pair.stop)
            pair.start()

    def running(self) -> dict[str, Sets]:
        """Map each pod to its running containers, and each to the GPUs its environment names."""
        found: dict[str, dict[str, frozenset[str]]] = {}
        for runtime in self._runtimes.values():
            for view in runtime.containers():
                if view.running and view.namespace == NAMESPACE:
                    visible = view.env.get("NVIDIA_VISIBLE_DEVICES", "")
                    gpus = self.called(visible.split(",") if visible else ())
                    found.setdefault(view.pod, {})[view.container] = gpus
        return found

    def stop_api(self) -> None:
        """Take the API server away from everybody."""
        self._plane.api_server.kill()

    def start_api(self) -> None:
        """Let the API server come back."""
        if self._plane.api_server.pid is None:
            self._plane.start_api_server()

    def forget_history(self) -> None:
        """Let the API server forget all changes so far: it is restarted."""
        self._plane.compact()

    def close(self) -> None:
        """End everything."""
        if self._failed():
            sys.stderr.write(f"logs are kept in {keep_logs(self._folder, 'cluster')}\n")
        while self._undo:
            self._undo.pop()()

    def _start_kubelet(self, node: str) -> None:
        root = self._folder / node
        root.mkdir()
        runtime = self._runtimes[node] = FakeRuntime(root / "cri.sock")
        runtime.start()
        self._undo.append(runtime.stop)
        kubelet = Kubelet(
            node,
            root,
            kubeconfig=self._plane.kubeconfig(f"system:node:{node}"),
            runtime=root / "cri.sock",
        )
        self._undo.append(kubelet.stop)
        kubelet.start()
        self._kubelets[node] = kubelet

    def _start_plugin(self, node: str) -> None:
        root, kubelet = self._folder / node, self._kubelets[node]
        write_sysfs(load_machine(MACHINES[node]), root / "sys", seed=node)
        self._faults[node].write_text("[]")
        token = self._plane.service_account(SYSTEM, "gputopo-device-plugin", node=node)
        plugin = PluginProcess(
            {
                "node-name": node,
                "kubeconfig": self._plane.write_kubeconfig(f"plugin-{node}", token),
                "config": self._folder / "plugin.yaml",
                "device-plugins-dir": kubelet.device_plugins_dir,
                "pod-resources-socket": kubelet.pod_resources_socket,
                "sysfs-root": root / "sys",
                "mock-machine": MACHINES[node],
                "mock-faults": self._faults[node],
            },
            root / "plugin.log",
        )
        self._undo.append(lambda: plugin.end(signal.SIGTERM))

    def _launch(self, kubeconfig: Path, extender: str) -> KubeScheduler:
        folder = kubeconfig.parent
        config: dict[str, Any] = msgspec.yaml.decode(CONFIG.read_bytes())
        config["clientConnection"] = {"kubeconfig": str(kubeconfig)}
        config["leaderElection"] |= {
            "leaseDuration": "6s",
            "renewDeadline": "4s",
            "retryPeriod": "500ms",
        }
        config |= {"podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 2}
        (asked,) = config["extenders"]
        asked |= {"urlPrefix": extender, "httpTimeout": f"{HTTP_SECONDS}s"}
        path = folder / "kube-scheduler.yaml"
        path.write_bytes(msgspec.yaml.encode(config))
        process = _SchedulerProcess(
            f"kube-scheduler {folder.name}",
            [
                str(binary_folder() / "kube-scheduler"),
                f"--config={path}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={free_port()}",
                "--v=2",
            ],
            folder / "kube-scheduler.log",
        )
        process.start()
        return process


class _SchedulerProcess(Process):
    """A kube-scheduler as a pair knows one."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.pid is not None

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it at once: asked politely it would try to give its Lease up to who has gone."""
        super().stop(number)
