"""One life of a kubelet process: everything in here is lost when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Protocol

from deviceplugin.podresources.v1.api_pb2_grpc import add_PodResourcesListerServicer_to_server
from deviceplugin.v1beta1.api_pb2_grpc import add_RegistrationServicer_to_server
from embedded.kubelet.admission import SyncLoop
from embedded.kubelet.bodies import Body, node_status, pod_status
from embedded.kubelet.checkpoint import FILE_NAME
from embedded.kubelet.containers import ContainerRuntime, ContainerView
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.journal import Journal
from embedded.kubelet.mirrors import Mirrors
from embedded.kubelet.plugin_watcher import PluginWatcher
from embedded.kubelet.podresources import PodResources, RateLimit, TokenBucket
from embedded.kubelet.pods import PodTable
from embedded.kubelet.registration import Registrar
from embedded.kubelet.requests import amount_of
from embedded.kubelet.settings import KubeletSettings
from embedded.kubelet.sockets import SocketServer, wipe_sockets
from embedded.kubelet.static_pods import StaticPodFolder
from embedded.kubelet.status import NodeApi, StatusWriter
from embedded.kubelet.workers import PodWorkers
from runtime.objects import Pod

STOP_TIMEOUT = 10.0
"""Seconds that stopping waits for each thread; a request to the API server may be under way."""


class PodSource(Protocol):
    """Where a node's pods come from; `run` tells a sink until `stop` is called."""

    def run(self) -> None:
        """Tell the pods."""

    def stop(self) -> None:
        """Make `run` return soon, from any thread."""


class KubeletProcess:
    """A running kubelet: its servers and its threads, five or, with static pods, six."""

    def __init__(
        self,
        settings: KubeletSettings,
        *,
        plugins_dir: Path,
        registry_dir: Path,
        resources_socket: Path,
        client: NodeApi | None,
        source: Callable[[SyncLoop], PodSource],
        runtime: ContainerRuntime,
        journal: Journal,
        rng: Random,
        clock: Callable[[], float],
        on_started: Callable[[ContainerView], None],
    ) -> None:
        self._settings = settings
        self._plugins_dir = plugins_dir
        self._resources_socket = resources_socket
        self._runtime = runtime
        self._journal = journal
        self._clock = clock
        self._since = time.time()
        self._threads: list[threading.Thread] = []
        runtime.end_due()
        wipe_sockets(plugins_dir)
        self._pods = PodTable()
        self._mirrors = Mirrors(self._mirror_changed)
        self._status = StatusWriter(
            client,
            settings.node_name,
            settings.labels,
            node_status=self._node_status,
            pod_status=self._pod_status,
            mirror_due=self._mirrors.due,
            journal=journal,
            sync_period=settings.status_period,
        )
        self._devices = DeviceManager(
            rng=rng,
            clock=clock,
            active=self._pods.active,
            note=journal.note,
            changed=self._devices_changed,
            checkpoint=plugins_dir / FILE_NAME,
            policy=settings.topology_policy,
            numa_nodes=settings.numa_nodes,
            stop_grace=settings.stop_grace,
        )
        self._registrar = Registrar(
            plugins_dir,
            self._devices,
            journal,
            disconnect_by_resource=settings.disconnect_by_resource,
            dial_timeout=settings.dial_timeout,
        )
        self._watcher = PluginWatcher(registry_dir, self._registrar.take, journal)
        self._workers = PodWorkers(
            pods=self._pods,
            devices=self._devices,
            runtime=runtime,
            journal=journal,
            clock=clock,
            settled=self._status.pod_changed,
            on_started=on_started,
            first_backoff=settings.first_backoff,
        )
        self._loop = SyncLoop(
            pods=self._pods,
            devices=self._devices,
            runtime=runtime,
            workers=self._workers,
            mirrors=self._mirrors,
            journal=journal,
            published=self._published,
            settled=self._status.pod_changed,
            remove=self._status.remove,
            wall_clock=time.time,
        )
        self._source = source(self._loop)
        self._folder = self._static_pod_folder()
        self._registration = self._registration_server()
        self._resources = self._resources_server()

    def start(self) -> None:
        """Serve, then take pods."""
        self._resources.start()
        self._registration.start()
        self._journal.note("started", self._settings.node_name, "")
        runs = [
            ("workers", self._workers.run),
            ("status", self._status.run),
            ("admit", self._loop.run),
            ("pods", self._source.run),
            ("plugins", self._watcher.run),
        ]
        # The files are read before the API server has said anything, if it ever does.
        if self._folder is None:
            self._loop.static_listed(())
        else:
            self._folder.look()
            runs.append(("files", self._folder.run))
        for name, run in runs:
            thread = threading.Thread(
                target=self._guard,
                args=(name, run),
                name=f"{self._settings.node_name}-{name}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End as a killed process does: connections break, nothing more is told, files stay."""
        self._devices.close()
        for part in (
            self._watcher,
            self._loop,
            self._workers,
            self._status,
            self._source,
            self._registrar,
        ):
            part.stop()
        if self._folder is not None:
            self._folder.stop()
        self._registration.stop()
        self._resources.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(STOP_TIMEOUT)
        self._journal.note("stopped", self._settings.node_name, "")

    def renew_socket(self) -> None:
        """Re-create kubelet.sock, and nothing else."""
        old = self._registration
        self._registration = self._registration_server()
        self._registration.start()
        old.stop()

    def crash(self, namespace: str, name: str, container: str) -> bool:
        """Kill a running container and start it again; False if there is none."""
        record = self._pods.find(namespace, name)
        view = None if record is None else self._runtime.latest(record.pod.metadata.uid, container)
        if view is None or not view.running:
            return False
        self._runtime.kill(view.uid, container)
        self._workers.restart(view.uid, container)
        return True

    def finish(self, namespace: str, name: str) -> bool:
        """Let a pod's containers end well; False if it does not run."""
        record = self._pods.find(namespace, name)
        if record is None or record.phase != "Running":
            return False
        self._workers.end(record.pod.metadata.uid)
        return True

    def _guard(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            # A mistake of ours: the node stands still from here on, and the journal says why.
            self._journal.note("trouble", self._settings.node_name, f"{name} died: {error!r}")
            raise

    def _static_pod_folder(self) -> StaticPodFolder | None:
        settings = self._settings
        if settings.static_pods is None:
            return None
        return StaticPodFolder(
            settings.static_pods,
            settings.node_name,
            settings.file_period,
            listed=self._loop.static_listed,
            trouble=lambda name, why: self._journal.note("trouble", name, why),
        )

    def _registration_server(self) -> SocketServer:
        server = SocketServer(
            self._plugins_dir / "kubelet.sock",
            workers=4,
            name=f"{self._settings.node_name}-register",
        )
        add_RegistrationServicer_to_server(self._registrar, server.grpc)
        return server

    def _resources_server(self) -> SocketServer:
        settings = self._settings
        bucket = TokenBucket(settings.resources_rate, settings.resources_burst, self._clock)
        server = SocketServer(
            self._resources_socket,
            workers=4,
            name=f"{settings.node_name}-resources",
            interceptors=(RateLimit(bucket),),
        )
        add_PodResourcesListerServicer_to_server(
            PodResources(self._pods, self._devices), server.grpc
        )
        return server

    def _machine(self) -> dict[str, str]:
        settings = self._settings
        return {"cpu": settings.cpu, "memory": settings.memory, "pods": str(settings.pods)}

    def _node_status(self) -> Body:
        return node_status(self._machine(), self._devices.counts(), self._since)

    def _published(self) -> dict[str, int]:
        told: Mapping[str, str] = self._status.published.get("allocatable") or self._machine()
        return {name: amount_of(name, value) for name, value in told.items()}

    def _pod_status(self, uid: str) -> tuple[Pod, Body] | None:
        record = self._pods.get(uid)
        if record is None or record.admitted is None:
            return None
        # A static pod's status is told of its mirror pod, once there is one.
        shown = self._mirrors.stand_in(record.pod)
        if shown is None:
            return None
        offset = time.time() - self._clock()
        status = pod_status(
            record,
            lambda name: self._runtime.latest(uid, name),
            self._devices.held_by(uid),
            self._devices.health_of,
            lambda moment: moment + offset,
        )
        return shown, status

    # These two know each other.
    def _mirror_changed(self, key: str) -> None:
        self._status.mirror_changed(key)

    def _devices_changed(self) -> None:
        self._status.node_changed()
        for record in self._pods.records():
            if record.phase == "Running" and self._devices.held_by(record.pod.metadata.uid):
                self._status.pod_changed(record.pod.metadata.uid)
