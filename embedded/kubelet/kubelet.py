"""A node with its kubelet: what stays when the process restarts, and the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from embedded.kubelet.admission import SyncLoop
from embedded.kubelet.containers import ContainerRuntime, ContainerView
from embedded.kubelet.errors import KubeletError
from embedded.kubelet.journal import Journal
from embedded.kubelet.process import KubeletProcess, PodSource
from embedded.kubelet.settings import KubeletSettings
from embedded.kubelet.status import NodeApi
from runtime.kube import KubeClient
from runtime.objects import Pod
from runtime.reflector import Reflector

RELIST_PAUSE = 1.0
"""Seconds at most between tries to reach the API server for pods."""


class Kubelet:
    """One node's kubelet. Its methods may be called from any thread.

    `root` gets ``dp/`` (device plugins, with kubelet.sock), ``reg/`` (plugins_registry) and
    ``pr/kubelet.sock`` (PodResources);
    keep it short, a unix socket's path has at most 107 bytes. Pods come from the API server behind
    `client` and statuses go there; tests may give `source` instead, and no client at all.
    `on_started` is called, in a thread of the kubelet, for every container that starts. Further
    keywords are fields of KubeletSettings. Nothing runs before `start`.
    """

    def __init__(
        self,
        node_name: str,
        root: Path,
        client: KubeClient | NodeApi | None,
        *,
        source: Callable[[SyncLoop], PodSource] | None = None,
        on_started: Callable[[ContainerView], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        self.settings = KubeletSettings(node_name=node_name, **settings)
        self.journal = Journal(clock)
        self._client = client
        self._source = source or self._reflect
        self._on_started = on_started or (lambda _: None)
        self._clock = clock
        self._root = root
        self._rng = Random(self.settings.seed)  # noqa: S311 -- stands for Go's map order
        self._runtime = ContainerRuntime(clock)
        self._lock = threading.Lock()
        self._process: KubeletProcess | None = None
        for directory in (
            self.device_plugins_dir,
            self.plugins_registry_dir,
            self.pod_resources_socket.parent,
        ):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    @property
    def node_name(self) -> str:
        """The node's name."""
        return self.settings.node_name

    @property
    def device_plugins_dir(self) -> Path:
        """Where plugins put their sockets and find kubelet.sock."""
        return self._root / "dp"

    @property
    def plugins_registry_dir(self) -> Path:
        """Where the plugin watcher looks for sockets; it survives a restart."""
        return self._root / "reg"

    @property
    def pod_resources_socket(self) -> Path:
        """The PodResources socket."""
        return self._root / "pr" / "kubelet.sock"

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None

    def start(self) -> None:
        """Start the process: plugins' sockets are deleted, the sockets served, pods taken."""
        with self._lock:
            if self._process is not None:
                raise KubeletError(f"{self.node_name}: kubelet runs already")
            self._process = self._new_process()
            self._process.start()

    def stop(self) -> None:
        """End the process; containers and files stay. Does nothing if it does not run."""
        with self._lock:
            if self._process is not None:
                self._process.stop()
                self._process = None

    def restart(self) -> None:
        """End the process and start a new one, which knows only the checkpoint and the runtime."""
        self.stop()
        self.start()

    def wipe_socket(self) -> None:
        """Delete kubelet.sock and create it anew; the process goes on."""
        with self._lock:
            if self._process is None:
                raise KubeletError(f"{self.node_name}: kubelet does not run")
            self._process.renew_socket()

    def crash_container(self, namespace: str, pod: str, container: str) -> None:
        """Kill a container, which kubelet starts again. Raises KubeletError if it does not run."""
        with self._lock:
            if self._process is None or not self._process.crash(namespace, pod, container):
                raise KubeletError(f"{namespace}/{pod}: container {container} does not run")

    def finish_pod(self, namespace: str, pod: str) -> None:
        """Let a pod's containers end well now. Raises KubeletError if it does not run."""
        with self._lock:
            if self._process is None or not self._process.finish(namespace, pod):
                raise KubeletError(f"{namespace}/{pod} does not run")

    def containers(self) -> tuple[ContainerView, ...]:
        """Return every start of a container so far, oldest first, as it stands now."""
        return self._runtime.views()

    def _new_process(self) -> KubeletProcess:
        return KubeletProcess(
            self.settings,
            plugins_dir=self.device_plugins_dir,
            registry_dir=self.plugins_registry_dir,
            resources_socket=self.pod_resources_socket,
            client=self._client,
            source=self._source,
            runtime=self._runtime,
            journal=self.journal,
            rng=self._rng,
            clock=self._clock,
            on_started=self._on_started,
        )

    def _reflect(self, loop: SyncLoop) -> PodSource:
        if not isinstance(self._client, KubeClient):
            raise KubeletError("only an API server can be watched for pods")
        return Reflector(
            self._client,
            "/api/v1/pods",
            Pod,
            loop,
            query={"fieldSelector": f"spec.nodeName={self.node_name}"},
            name=f"pods of {self.node_name}",
            last_pause=RELIST_PAUSE,
        )
