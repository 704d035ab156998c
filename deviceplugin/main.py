"""Composition root of the device plugin: builds everything, owns the threads.

| thread | does |
|---|---|
| monitor | NVML: discovery, events, probes; posts to the board |
| watchdog | whether the monitor still moves |
| node | watch of the own Node, for GPUs that are cordoned |
| events | Events of the own Node |
| registrar:RESOURCE | sockets and registration with kubelet, one for each resource |
| config | follows the configuration |
| rpc-0..7 | kubelet's calls |
| read-back | PodResources outside of admissions |
| pods | list and watch of the own node's pods |
| publisher | annotations of the own Node |
| ops | metrics and probes |
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import structlog

from deviceplugin.admission.choosers import Choosers
from deviceplugin.admission.ledger import Ledger
from deviceplugin.admission.readback import ReadBack
from deviceplugin.admission.traces import Traces
from deviceplugin.config.health import malformed_words, xid_responses
from deviceplugin.config.model import Config
from deviceplugin.config.source import ConfigReader
from deviceplugin.discovery.platform import check_platform
from deviceplugin.discovery.topology import discover
from deviceplugin.errors import NvmlError, PlatformError
from deviceplugin.guarding.guard import Guard
from deviceplugin.health.xids import Response
from deviceplugin.metrics import Metrics
from deviceplugin.nvml.interface import Nvml
from deviceplugin.offering import Offering
from deviceplugin.pods.cache import PODS_PATH, PodCache, PodGetter, own_node_query
from deviceplugin.pods.holdings import Holdings, PodResources
from deviceplugin.publishing.books import Books
from deviceplugin.publishing.features import FeatureFile
from deviceplugin.publishing.publisher import Publisher, read_state
from deviceplugin.publishing.state import on_gpus
from deviceplugin.resources.inventory import Board
from deviceplugin.resources.stock import Stock
from deviceplugin.settings import PluginSettings
from runtime import logs
from runtime.errors import AccessError, KubeError, SettingsError, TracingError
from runtime.kube import KubeClient, connect
from runtime.lifecycle import Workers
from runtime.objects import Pod
from runtime.ops import OpsServer
from runtime.reflector import Reflector
from runtime.tracing import open_tracer
from topology.errors import SelectionError

PREVIOUS_SECONDS = 2.0
"""How long the start waits for the state that a former process published."""

_log = structlog.get_logger("deviceplugin")


def run(
    settings: PluginSettings,
    *,
    config: ConfigReader | None = None,
    nvml: Nvml | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Run the device plugin until a signal, or until `stop` is set; return the exit code.

    `config` reads what is offered and how, and is followed; None is the default of everything.
    With `nvml` given it is used, and never closed, in place of the driver's library. With `stop`
    given the process belongs to somebody else: logging and signals are left alone. 0 after an
    asked stop, 1 when a thread failed or the start was impossible, with one line in the log.
    """
    if stop is None:
        logs.setup(settings.log_level, component="device-plugin", node=settings.node_name)
        # gRPC's core writes each closed connection to standard error, in a format of its own. It
        # reads this when the first channel or server is made, which is later.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    reader = config or ConfigReader()
    try:
        client = connect(settings.kubeconfig)
        choosers = Choosers(settings.policy)
        first = reader.load()
        check_platform(Path(settings.dev_root), Path(settings.sysfs_root))
        tracer = open_tracer("gputopo-device-plugin", os.environ)
    except (AccessError, SelectionError, SettingsError, PlatformError, TracingError) as error:
        _log.error("cannot start", problem=str(error))
        return 1
    workers = Workers()
    plugin = Plugin(
        settings,
        (reader, first),
        client=client,
        choosers=choosers,
        workers=workers,
        nvml=nvml,
        traces=Traces(tracer),
    )
    if stop is None:
        workers.take_signals()
        signal.signal(signal.SIGHUP, lambda *_: plugin.offering.reload())
    else:
        _follow(stop, workers)
    try:
        plugin.start()
    except OSError as error:
        _log.error("cannot start", problem=f"{settings.ops_host}:{settings.ops_port}: {error}")
        workers.ask_stop(error)
    workers.wait()
    workers.shut_down()
    plugin.close()
    tracer.close()
    return workers.exit_code()


class Plugin:
    """All collaborators of one plugin, wired."""

    def __init__(
        self,
        settings: PluginSettings,
        config: tuple[ConfigReader, Config],
        *,
        client: KubeClient,
        choosers: Choosers,
        workers: Workers,
        nvml: Nvml | None,
        traces: Traces | None = None,
    ) -> None:
        reader, first = config
        self._settings = settings
        self._client = client
        self._workers = workers
        self._given_nvml = nvml
        self._opened = False
        self.metrics = Metrics()
        self.board = Board()
        self.pods = PodCache(on_change=self._hear_server, on_end=self._end_pod)
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
        self.pod_resources = PodResources(settings.pod_resources_socket)
        self.ledger = Ledger(
            self.pod_resources,
            self.metrics,
            timeout=settings.pod_resources_seconds,
            on_reading=self._hear_kubelet,
            allocatable=self.pod_resources.allocatable,
        )
        file = settings.feature_file
        self.features = None if file is None else FeatureFile(Path(file), Path(settings.sysfs_root))
        self.read_back = ReadBack(
            self.ledger.read_back,
            self.pods.read,
            period=settings.read_back_seconds,
            quiet=settings.read_back_quiet_seconds,
        )
        self.offering = Offering(
            settings,
            reader,
            first,
            metrics=self.metrics,
            ledger=self.ledger,
            pods=self.pods.read,
            get_pod=PodGetter(client).get,
            choosers=choosers,
            workers=workers,
            on_stock=self._tell,
            on_config=self._take_config,
            on_answered=self.read_back.wake,
            traces=traces,
        )
        responses, hold_seconds = self._health_rules(first)
        self.guard = Guard(
            settings,
            client=client,
            board=self.board,
            metrics=self.metrics,
            stopping=workers.stopping,
            open_nvml=self._open_nvml,
            close_nvml=self._close_nvml,
            discover=lambda nvml: discover(
                nvml, Path(settings.sysfs_root), Path(settings.proc_root)
            ),
            warm=choosers.warm,
            holdings=self._holdings,
            pods=self.pods.read,
            hold_seconds=hold_seconds,
            xid_responses=responses,
        )
        books = Books(
            stock=self.offering.read,
            reading=lambda: self.ledger.last,
            pods=self.pods.read,
            metrics=self.metrics,
            conditions=self.guard.conditions.read,
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
        self.ops = OpsServer(
            settings.ops_host,
            settings.ops_port,
            registry=self.metrics.registry,
            healthy=self._is_healthy,
            ready=self._is_ready,
            documents={"/node": self._report},
        )

    def start(self) -> None:
        """Start all threads; raises OSError if the ops port is taken."""
        self.ops.start()
        self.board.listen(self.offering.take_inventory)
        self._remember()
        start = self._workers.start
        start("pods", self.reflector.run, self.reflector.stop)
        start("publisher", self.publisher.run, self.publisher.stop)
        start("read-back", self.read_back.run, self.read_back.stop)
        # Former sockets are swept away before the guard's first inventory makes new ones.
        self.offering.start()
        self.guard.start(self._workers)

    def close(self) -> None:
        """Let go of connections, files and the ops port; after all threads have ended."""
        self.offering.close()
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
        if state is not None:
            self.guard.remember(state)

    # The collaborators know each other in circles; these are the threads' door bells.
    def _hear_kubelet(self) -> None:
        self.guard.cordon.refresh()
        holdings, inventory = self._holdings(), self.board.read()
        if holdings is not None:
            self.metrics.devices.show_holders(on_gpus(holdings, inventory), inventory)
        self.publisher.wake()

    def _holdings(self) -> Holdings | None:
        """Return who has which device: a cordon closes MIG devices and replicas one by one."""
        reading = self.ledger.last
        return None if reading is None else reading.everything()

    def _hear_server(self) -> None:
        self.publisher.server_answers()

    def _end_pod(self) -> None:
        self.guard.cordon.refresh()
        self.read_back.wake()

    def _tell(self, stock: Stock) -> None:
        inventory = stock.inventory
        self.metrics.devices.show(inventory)
        if self.features is not None:
            self.features.put(stock)
        self.publisher.wake()

    def _take_config(self, config: Config) -> None:
        self.guard.monitor.follow(*self._health_rules(config))

    def _health_rules(self, config: Config) -> tuple[dict[int, Response], float]:
        settings, health = self._settings, config.health
        words = malformed_words(health)
        if words:
            _log.warning("no XIDs, passed over", words=words)
        responses = settings.xid_responses | xid_responses(health)
        return responses, health.hold_seconds or settings.recovery_hold_seconds

    def _open_nvml(self) -> Nvml:
        if self._given_nvml is not None:
            return self._given_nvml
        # Only here: a process that is given an NVML never loads the driver's binding.
        from deviceplugin.nvml.library import open_nvml  # noqa: PLC0415 -- see above

        try:
            nvml = open_nvml()
        except NvmlError as error:
            if self.offering.read().config.flags.fail_on_init_error and not self._opened:
                self._workers.ask_stop(error)
            raise
        self._opened = True
        return nvml

    def _close_nvml(self, nvml: Nvml) -> None:
        if nvml is not self._given_nvml:
            nvml.close()

    def _report(self) -> bytes:
        return self.guard.report(self._is_ready())

    def _is_healthy(self) -> str | None:
        return self.offering.is_broken() or self.guard.watchdog.problem

    def _is_ready(self) -> str | None:
        if not self.offering.read().inventory.topology.gpus:
            return f"no GPUs: {self.guard.monitor.problem}"
        return self.offering.waits_for()


def _follow(stop: threading.Event, workers: Workers) -> None:
    def wait() -> None:
        stop.wait()
        workers.ask_stop("asked")

    threading.Thread(target=wait, name="stop", daemon=True).start()
