"""The contract's node, made of the embedded API server and kubelet and a real plugin process."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from embedded.apiserver import ApiServer
from embedded.kubelet import Kubelet
from runtime.kube import connect
from tests.contract.api_world import ApiWorld
from tests.contract.gate import Gate
from tests.contract.node_parts import NodeParts, Start, write_kubeconfig
from tests.contract.world import NAMESPACE, NODE, Setup


class EmbeddedWorld(ApiWorld):
    """`tests.contract.world.World` without a cluster."""

    def __init__(self, setup: Setup) -> None:
        folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._folder = folder
        self._api = ApiServer()
        self._api.start()
        where = urlsplit(self._api.url)
        # Everybody's way to the API server but the cases' own: shut, it is the server that is.
        self._front = Gate((str(where.hostname), int(where.port or 0)))
        client = connect(str(self._api.write_kubeconfig(folder / "kubeconfig")))
        self._kubelet_client = connect(str(write_kubeconfig(folder / "front", self._front.port)))
        self._kubelet = Kubelet(
            NODE,
            folder,
            self._kubelet_client,
            status_period=0.05,
            topology_policy=setup.topology_policy,
            numa_nodes=(0, 1),
            static_pods=folder / "static",
            file_period=0.05,
        )
        (folder / "static").mkdir()
        self._kubelet.start()
        parts = NodeParts(
            folder=folder,
            client=client,
            plain=("127.0.0.1", self._front.port),
            device_plugins_dir=self._kubelet.device_plugins_dir,
            plugins_registry_dir=self._kubelet.plugins_registry_dir,
            pod_resources_socket=self._kubelet.pod_resources_socket,
            static_pods=folder / "static",
        )
        super().__init__(setup, parts)

    def starts_so_far(self) -> Iterable[Start]:
        """Return every start of a container in NAMESPACE so far, oldest first."""
        return tuple(
            Start(view.pod, view.container, view.running, view.env)
            for view in self._kubelet.containers()
            if view.namespace == NAMESPACE
        )

    def crash(self, name: str, container: str) -> None:
        """Kill a container."""
        self._kubelet.crash_container(NAMESPACE, name, container)

    def stop_kubelet(self) -> None:
        """End kubelet's process."""
        self._kubelet.stop()

    def start_kubelet(self) -> None:
        """Start kubelet's process again, if it does not run."""
        if not self._kubelet.running:
            self._kubelet.start()

    def renew_kubelet_socket(self) -> None:
        """Delete kubelet.sock and create it anew."""
        self._kubelet.wipe_socket()

    def pause_api_server(self, *, silently: bool) -> None:
        """Take the API server from everybody but the cases."""
        self._front.set("silent" if silently else "shut")

    def resume_api_server(self) -> None:
        """Let the API server go on."""
        self._front.set("open")

    def expire_versions(self) -> None:
        """Restart the API server without its history."""
        self._api.go_away()
        # Something else is written last, as leases are on a real one: no version is the newest.
        self._api.store.write("leases", {"metadata": {"name": "beat", "namespace": "default"}})
        self._api.compact()
        self._api.come_back()

    def close(self) -> None:
        """End everything."""
        self._front.set("open")
        self._gate.set("open")
        self.end_plugin(signal.SIGTERM)
        self._kubelet.stop()
        self._client.close()
        self._kubelet_client.close()
        self._gate.close()
        self._front.close()
        self._api.stop()
        shutil.rmtree(self._folder)
