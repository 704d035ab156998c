"""The contract's node, made of etcd, kube-apiserver, kubelet, and a runtime that starts nothing."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest

from runtime.kube import connect
from tests.contract.api_world import ApiWorld
from tests.contract.node_parts import NodeParts, Start
from tests.contract.world import NAMESPACE, NODE, Setup
from tests.e2e.control_plane import ControlPlane
from tests.e2e.cri import FakeRuntime
from tests.e2e.kubelet import Kubelet
from tests.e2e.logs import keep_logs
from tests.e2e.numa import write_numa_nodes

DAEMONSET: Final = Path(__file__).parents[2] / "daemonset"
BUNDLE: Final = DAEMONSET / "base"
POLICY: Final = DAEMONSET / "components" / "admission-policies" / "own-node.yaml"
"""Holds the plugin. The other one is left out: the world itself binds pods with their sets."""
NUMA_NODES: Final = 2


class RealWorld(ApiWorld):
    """`tests.contract.world.World` on real components.

    The bundle's objects are applied, and nothing runs them: the plugin is a process here, with a
    token of its service account that is bound to the node, so the shipped rights hold for it.
    Logs are kept if, when the world ends, something has `failed`.
    """

    def __init__(self, setup: Setup, *, failed: Callable[[], bool] = lambda: True) -> None:
        folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._folder = folder
        self._failed = failed
        self._plane = ControlPlane(folder, nodes=[NODE])
        self._runtime = FakeRuntime(folder / "cri.sock")
        write_numa_nodes(folder / "numa", NUMA_NODES)
        self._kubelet = Kubelet(
            NODE,
            folder / NODE,
            kubeconfig=self._plane.kubeconfig(f"system:node:{NODE}"),
            runtime=folder / "cri.sock",
            topology_policy=setup.topology_policy,
            numa=folder / "numa",
        )
        try:
            self._plane.start()
            self._plane.kubectl("apply", "-k", str(BUNDLE))
            self._plane.kubectl("apply", "-f", str(POLICY))
            self._plane.kubectl("create", "namespace", NAMESPACE)
            self._plane.make_account(NAMESPACE)
            self._runtime.start()
            self._kubelet.start()
            self._plane.await_node(NODE)
            token = self._plane.service_account(
                "gputopo-system", "gputopo-device-plugin", node=NODE
            )
            # The contract's gate has to read what passes, so TLS ends behind it.
            self._proxy, port = self._plane.start_proxy("plugin", token)
        except BaseException:
            self._failed = lambda: True
            self._end()
            raise
        parts = NodeParts(
            folder=folder,
            client=connect(str(self._plane.kubeconfig())),
            plain=("127.0.0.1", port),
            device_plugins_dir=self._kubelet.device_plugins_dir,
            plugins_registry_dir=self._kubelet.root / "plugins_registry",
            pod_resources_socket=self._kubelet.pod_resources_socket,
            static_pods=self._kubelet.static_pods,
        )
        super().__init__(setup, parts)

    def starts_so_far(self) -> Iterable[Start]:
        """Return every start of a container in NAMESPACE so far, oldest first."""
        return tuple(
            Start(view.pod, view.container, view.running, view.env)
            for view in self._runtime.containers()
            if view.namespace == NAMESPACE
        )

    def crash(self, name: str, container: str) -> None:
        """Kill a container."""
        self._runtime.crash(NAMESPACE, name, container)

    def stop_kubelet(self) -> None:
        """End kubelet's process."""
        self._kubelet.process.kill()

    def start_kubelet(self) -> None:
        """Start kubelet's process again, if it does not run."""
        if self._kubelet.process.pid is None:
            self._kubelet.start()

    def renew_kubelet_socket(self) -> None:
        """Leave the case: kubelet has one socket for life."""
        pytest.skip("a real kubelet makes its socket anew only when it is restarted")

    def pause_api_server(self, *, silently: bool) -> None:
        """Hold the API server still, or kill it."""
        if silently:
            self._plane.api_server.pause()
        else:
            self._plane.api_server.kill()

    def resume_api_server(self) -> None:
        """Let the API server go on, or start it again."""
        if self._plane.api_server.pid is None:
            self._plane.start_api_server()
        else:
            self._plane.api_server.resume()

    def expire_versions(self) -> None:
        """Restart the API server without its history."""
        self._plane.compact()

    def close(self) -> None:
        """End everything."""
        self._gate.set("open")
        self.end_plugin(signal.SIGTERM)
        self._client.close()
        self._gate.close()
        self._proxy.stop()
        self._end()

    def _end(self) -> None:
        if self._failed():
            sys.stderr.write(f"logs are kept in {keep_logs(self._folder, NODE)}\n")
        self._kubelet.stop()
        self._runtime.stop()
        self._plane.stop()
        shutil.rmtree(self._folder)
