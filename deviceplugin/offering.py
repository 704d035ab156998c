"""Everything around what is offered: the stock, its endpoints, CDI files, the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from deviceplugin.admission.choosers import Choosers
from deviceplugin.admission.desk import Desk, Patience
from deviceplugin.admission.ledger import Ledger
from deviceplugin.admission.traces import Traces
from deviceplugin.config.model import Config
from deviceplugin.config.source import ConfigReader
from deviceplugin.config.watch import ConfigWatch
from deviceplugin.injection.answer import CDI_STRATEGIES
from deviceplugin.injection.compose import compose
from deviceplugin.injection.driver import DriverReader
from deviceplugin.injection.files import CdiFiles
from deviceplugin.metrics import Metrics
from deviceplugin.resources.facts import NodeFacts, read_facts
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import Stock, Store
from deviceplugin.serving.endpoints import Endpoint, Endpoints, Place
from deviceplugin.settings import PluginSettings
from runtime.lifecycle import Workers
from runtime.objects import Pod

_log = structlog.get_logger("deviceplugin.offering")


class Offering:
    """Offers what the newest inventory and configuration allow, and answers for it.

    `reader` follows the configuration of which `first` is the first. `on_stock` is called when
    what is offered has changed and kubelet has been told, `on_config` with each new configuration
    before it is used, `on_answered` after each answer about devices.
    """

    def __init__(
        self,
        settings: PluginSettings,
        reader: ConfigReader,
        first: Config,
        *,
        metrics: Metrics,
        ledger: Ledger,
        pods: Callable[[], Mapping[str, Pod]],
        get_pod: Callable[[str, float], Pod | None],
        choosers: Choosers,
        workers: Workers,
        on_stock: Callable[[Stock], None],
        on_config: Callable[[Config], None],
        on_answered: Callable[[], None],
        traces: Traces | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._ledger = ledger
        self._pods = pods
        self._get_pod = get_pod
        self._choosers = choosers
        self._workers = workers
        self._on_stock = on_stock
        self._on_config = on_config
        self._on_answered = on_answered
        self._traces = traces
        self._kubelet_socket = first.flags.kubelet_socket
        self._store = Store(first, look=self._look, on_change=self._tell, main=settings.resource)
        registry = settings.plugins_registry_dir
        self._registry = None if registry is None else Path(registry)
        self._endpoints = Endpoints(
            self._registry or Path(settings.device_plugins_dir),
            self._make_endpoint,
            self._start_endpoint,
        )
        self._drivers = DriverReader()
        self._cdi_files = CdiFiles(Path(settings.cdi_dir))
        self._watch = ConfigWatch(
            reader,
            self._take_config,
            metrics.config_reloads,
            period=settings.config_poll_seconds,
            on_look=self._look_again,
        )

    def start(self) -> None:
        """Sweep former sockets away and follow the configuration."""
        self._endpoints.sweep()
        self._workers.start("config", self._watch.run, self._watch.stop)

    def close(self) -> None:
        """Take the CDI files away; after all threads have ended."""
        self._cdi_files.clear()

    def reload(self) -> None:
        """Read the configuration again; works in signal handlers."""
        self._watch.reload()

    def read(self) -> Stock:
        """Return what is offered now."""
        return self._store.read()

    def take_inventory(self, inventory: Inventory) -> None:
        """Offer what another inventory allows."""
        self._store.take_inventory(inventory)

    def is_broken(self) -> str | None:
        """Return which server does not answer, None if all do."""
        problems = (endpoint.problem() for endpoint in self._endpoints.all())
        return next((problem for problem in problems if problem), None)

    def waits_for(self) -> str | None:
        """Return why pods cannot have what there could be, None if they can."""
        stock, endpoints = self.read(), self._endpoints.all()
        if not any(endpoint.devices for endpoint in endpoints):
            return f"nothing to offer: {stock.problem or 'the configuration leaves no device'}"
        if self._cdi_files.problem:
            return f"CDI files: {self._cdi_files.problem}"
        waiting = (endpoint.waits_for() for endpoint in endpoints)
        problem = next((problem for problem in waiting if problem), None)
        return f"not registered: {problem}" if problem else None

    def _look(self, inventory: Inventory, config: Config) -> NodeFacts:
        settings = self._settings
        return read_facts(Path(settings.dev_root), Path(settings.mps_dir), inventory, config)

    def _tell(self, stock: Stock) -> None:
        # Before kubelet hears of them: what Allocate names must be there.
        self._write_cdi(stock)
        self._endpoints.offer(stock)
        self._on_stock(stock)

    def _write_cdi(self, stock: Stock) -> None:
        plugin = stock.config.flags.plugin
        if CDI_STRATEGIES.isdisjoint(plugin.device_list_strategy):
            self._cdi_files.clear()
            return
        root = Path(plugin.container_driver_root)
        driver = self._drivers.read(root if root.is_dir() else Path("/"))
        self._cdi_files.put(compose(stock, driver))

    def _look_again(self) -> None:
        """Notice what has changed on disk: device nodes, CDI files, the driver's files."""
        self._store.refresh()
        stock = self.read()
        if stock.inventory.topology.gpus:
            self._write_cdi(stock)

    def _take_config(self, config: Config) -> None:
        if config.flags.kubelet_socket != self._kubelet_socket:
            _log.warning("another kubelet socket is used only after a restart")
        self._on_config(config)
        self._store.take_config(config)

    def _make_endpoint(self, resource: str) -> Endpoint:
        settings = self._settings
        desk = Desk(
            stock=self.read,
            resource=resource,
            pods=self._pods,
            get_pod=self._get_pod,
            ledger=self._ledger,
            chooser_for=self._choosers,
            metrics=self._metrics,
            patience=Patience(
                pod_resources=settings.pod_resources_seconds,
                admission=settings.admission_seconds,
                quiet=settings.read_back_quiet_seconds,
            ),
            traces=self._traces,
        )
        return Endpoint(
            resource,
            desk=desk,
            metrics=self._metrics,
            place=Place(
                Path(settings.device_plugins_dir),
                self._kubelet_socket,
                settings.socket_poll_seconds,
                self._registry,
            ),
            numa_hints=settings.numa_hints,
            on_answered=self._on_answered,
            offer=lambda: self._ledger.offer,
        )

    def _start_endpoint(self, endpoint: Endpoint) -> None:
        if not self._workers.stopping.is_set():
            registrar = endpoint.registrar
            self._workers.start(f"registrar:{endpoint.resource}", registrar.run, registrar.stop)
