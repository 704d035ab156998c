"""Composition root of the device plugin: builds everything, owns the threads.

| thread | does |
|---|---|
| monitor | NVML: discovery, events, probes; posts to the board |
| registrar | sockets and registration with kubelet |
| rpc-0..7 | kubelet's calls |
| read-back | PodResources outside of admissions |
| pods | list and watch of the own node's pods |
| publisher | annotations of the own Node |
| ops | metrics and probes |
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import structlog

from deviceplugin.books import Books
from deviceplugin.choosers import Choosers
from deviceplugin.desk import Desk, Patience
from deviceplugin.discovery import discover
from deviceplugin.holdings import PodResources
from deviceplugin.inventory import Board, Inventory
from deviceplugin.listing import Listing, list_devices
from deviceplugin.metrics import Metrics
from deviceplugin.monitor import Monitor
from deviceplugin.nvml_interface import Nvml
from deviceplugin.pods import PODS_PATH, PodCache, PodGetter, own_node_query
from deviceplugin.publisher import Publisher, read_state
from deviceplugin.readback import ReadBack
from deviceplugin.registrar import Registrar
from deviceplugin.server import PluginServer
from deviceplugin.servicer import Servicer
from deviceplugin.settings import PluginSettings
from deviceplugin.v1beta1.api_pb2 import ListAndWatchResponse
from runtime import logs
from runtime.errors import AccessError, KubeError
from runtime.kube import KubeClient, connect
from runtime.lifecycle import Workers
from runtime.objects import Pod
from runtime.ops import OpsServer
from runtime.reflector import Reflector
from topology.errors import SelectionError

PREVIOUS_SECONDS = 2.0
"""How long the start waits for the state that a former process published."""

_log = structlog.get_logger("deviceplugin")


def run(
    settings: PluginSettings, *, nvml: Nvml | None = None, stop: threading.Event | None = None
) -> int:
    """Run the device plugin until a signal, or until `stop` is set; return the exit code.

    With `nvml` given it is used, and never closed, in place of the driver's library. With `stop`
    given the process belongs to somebody else: logging and signals are left alone. 0 after an
    asked stop, 1 when a thread failed or the start was impossible, with one line in the log.
    """
    if stop is None:
        logs.setup(settings.log_level, component="device-plugin", node=settings.node_name)
        # gRPC's core writes each closed connection to standard error, in a format of its own. It
        # reads this when the first channel or server is made, which is later.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        client = connect(settings.kubeconfig)
        choosers = Choosers(settings.policy)
    except (AccessError, SelectionError) as error:
        _log.error("cannot start", problem=str(error))
        return 1
    workers = Workers()
    if stop is None:
        workers.take_signals()
    else:
        _follow(stop, workers)
    plugin = Plugin(settings, client, choosers, workers, nvml)
    try:
        plugin.start()
    except OSError as error:
        _log.error("cannot start", problem=f"{settings.ops_host}:{settings.ops_port}: {error}")
        workers.ask_stop(error)
    workers.wait()
    workers.shut_down()
    plugin.close()
    return workers.exit_code()


class Plugin:
    """All collaborators of one plugin, wired."""

    def __init__(
        self,
        settings: PluginSettings,
        client: KubeClient,
        choosers: Choosers,
        workers: Workers,
        nvml: Nvml | None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._workers = workers
        self._given_nvml = nvml
        self.metrics = Metrics()
        self.board = Board()
        self.pods = PodCache(on_change=self._hear_server, on_end=self._wake_read_back)
        self.reflector: Reflector[Pod] = Reflector(
            client,
            PODS_PATH,
            Pod,
            self.pods,
            query=own_node_query(settings.node_name),
            name="pods",
            # The first to notice that the API server is back: short, and it spreads by itself.
            last_pause=2.0,
        )
        self.pod_resources = PodResources(settings.pod_resources_socket, settings.resource)
        self.desk = Desk(
            board=self.board,
            resource=settings.resource,
            pods=self.pods.read,
            get_pod=PodGetter(client).get,
            pod_resources=self.pod_resources,
            chooser_for=choosers,
            metrics=self.metrics,
            patience=Patience(
                pod_resources=settings.pod_resources_seconds,
                admission=settings.admission_seconds,
                quiet=settings.read_back_quiet_seconds,
            ),
            on_holdings=self._wake_publisher,
        )
        self.read_back = ReadBack(
            self.desk.read_back,
            self.pods.read,
            period=settings.read_back_seconds,
            quiet=settings.read_back_quiet_seconds,
        )
        books = Books(
            board=self.board,
            holdings=lambda: self.desk.holdings,
            pods=self.pods.read,
            resource=settings.resource,
            metrics=self.metrics,
        )
        self.publisher = Publisher(
            client=client,
            node_name=settings.node_name,
            topology=books.topology,
            state=books.state,
            metrics=self.metrics,
            interval=settings.publish_seconds,
            verify_seconds=settings.verify_seconds,
        )
        self.listing = Listing(self._list(self.board.read()), self._wake_registrar)
        servicer = Servicer(self.desk, self.listing, self.metrics, self.read_back.wake)
        self.registrar = Registrar(
            folder=Path(settings.device_plugins_dir),
            resource=settings.resource,
            listing=self.listing,
            serve=lambda path: PluginServer(path, servicer),
            metrics=self.metrics,
            ready=lambda: bool(self.board.read().topology.gpus),
            poll_seconds=settings.socket_poll_seconds,
        )
        self.monitor = Monitor(
            open_nvml=self._open_nvml,
            close_nvml=self._close_nvml,
            discover=lambda nvml: discover(nvml, Path(settings.sysfs_root)),
            board=self.board,
            metrics=self.metrics,
            stopping=workers.stopping,
            hold_seconds=settings.recovery_hold_seconds,
            probe_seconds=settings.probe_seconds,
            reinit_seconds=settings.reinit_seconds,
            xid_responses=settings.xid_responses,
            warm=choosers.warm,
        )
        self.ops = OpsServer(
            settings.ops_host,
            settings.ops_port,
            registry=self.metrics.registry,
            healthy=self._is_healthy,
            ready=self._is_ready,
        )

    def start(self) -> None:
        """Start all threads; raises OSError if the ops port is taken."""
        self.ops.start()
        self.board.listen(self._tell)
        self._remember()
        start = self._workers.start
        start("pods", self.reflector.run, self.reflector.stop)
        start("publisher", self.publisher.run, self.publisher.stop)
        start("read-back", self.read_back.run, self.read_back.stop)
        start("monitor", self.monitor.run)
        start("registrar", self.registrar.run, self.registrar.stop)

    def close(self) -> None:
        """Let go of connections and the ops port; after all threads have ended."""
        self.ops.stop()
        self.pod_resources.close()
        self._client.close()

    def _remember(self) -> None:
        """Take over which GPUs a former process found unhealthy."""
        try:
            state = read_state(self._client, self._settings.node_name, PREVIOUS_SECONDS)
        except KubeError as error:
            _log.warning("the state before is not known", problem=str(error))
            return
        if state is not None and state.unhealthy:
            _log.info("GPUs were unhealthy before", unhealthy=state.unhealthy)
            self.monitor.adopt(state.unhealthy)

    # The collaborators know each other in circles; these are the threads' door bells.
    def _wake_publisher(self) -> None:
        self.publisher.wake()

    def _hear_server(self) -> None:
        self.publisher.server_answers()

    def _wake_read_back(self) -> None:
        self.read_back.wake()

    def _wake_registrar(self) -> None:
        self.registrar.wake()

    def _tell(self, inventory: Inventory) -> None:
        self.metrics.show_health(
            {
                (gpu.uuid, str(gpu.index)): gpu.uuid not in inventory.unhealthy
                for gpu in inventory.topology.gpus
            }
        )
        self.listing.post(self._list(inventory))
        self.publisher.wake()
        self.registrar.wake()

    def _list(self, inventory: Inventory) -> ListAndWatchResponse:
        return list_devices(inventory, numa_hints=self._settings.numa_hints)

    def _open_nvml(self) -> Nvml:
        if self._given_nvml is not None:
            return self._given_nvml
        # Only here: a process that is given an NVML never loads the driver's binding.
        from deviceplugin.nvml import open_nvml  # noqa: PLC0415 -- see above

        return open_nvml()

    def _close_nvml(self, nvml: Nvml) -> None:
        if nvml is not self._given_nvml:
            nvml.close()

    def _is_healthy(self) -> str | None:
        server = self.registrar.server
        if server is not None and not server.answers():
            return f"the plugin does not answer on {server.path}"
        return None

    def _is_ready(self) -> str | None:
        if not self.board.read().topology.gpus:
            return f"no GPUs: {self.monitor.problem}"
        if not self.registrar.registered:
            return f"not registered: {self.registrar.problem or 'waiting for kubelet'}"
        return None


def _follow(stop: threading.Event, workers: Workers) -> None:
    def wait() -> None:
        stop.wait()
        workers.ask_stop("asked")

    threading.Thread(target=wait, name="stop", daemon=True).start()
