"""One server, socket and registration for each resource, as resources come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Offer
from deviceplugin.metrics import Metrics
from deviceplugin.resources.devices import Resource
from deviceplugin.resources.stock import Stock
from deviceplugin.serving import sockets
from deviceplugin.serving.listing import Listing, list_devices
from deviceplugin.serving.plugin_watcher import WatchedRegistrar
from deviceplugin.serving.registrar import KUBELET_SOCKET, Registrar
from deviceplugin.serving.server import PluginServer
from deviceplugin.serving.servicer import Servicer
from deviceplugin.v1beta1 import api_pb2

SETTLED: Final = 3.0
"""Seconds that kubelet may take to act on a list; it takes milliseconds."""

_log = structlog.get_logger("deviceplugin.endpoints")


class Place(msgspec.Struct, frozen=True):
    """Where sockets are: the folder of ours, and kubelet's own.

    `kubelet` None is the usual one in the folder, "" none at all: then nothing is registered.
    With a `registry` (kubelet's plugins_registry) sockets lie there, and kubelet comes to them.
    """

    folder: Path
    kubelet: str | None = None
    poll_seconds: float = 0.05
    registry: Path | None = None

    @property
    def kubelet_socket(self) -> Path:
        """Kubelet's socket."""
        return Path(self.kubelet) if self.kubelet else self.folder / KUBELET_SOCKET


class Endpoint:
    """What kubelet talks to about one resource. The thread of `run` keeps it registered."""

    def __init__(
        self,
        resource: str,
        *,
        desk: Desk,
        metrics: Metrics,
        place: Place,
        numa_hints: bool,
        on_answered: Callable[[], None],
        offer: Callable[[], Offer | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self._offer = offer
        self._clock = clock
        self._healthy: frozenset[str] = frozenset()
        self._news_at = clock()
        self._numa_hints = numa_hints
        self._ever = False
        self.devices = 0
        self.listing = Listing(self._list(Resource(resource)), self._wake)
        servicer = Servicer(desk, self.listing, metrics, on_answered)
        self.registrar = self._make_registrar(place, servicer, metrics)

    def _make_registrar(
        self, place: Place, servicer: Servicer, metrics: Metrics
    ) -> Registrar | WatchedRegistrar:
        # Once offered it stays registered: an empty list takes the resource to zero.
        if place.registry is not None:
            return WatchedRegistrar(
                folder=place.registry,
                resource=self.resource,
                listing=self.listing,
                serve=lambda path, introduction: PluginServer(path, servicer, introduction),
                metrics=metrics,
                ready=lambda: self._ever,
                forgotten=self._is_forgotten,
                poll_seconds=place.poll_seconds,
            )
        return Registrar(
            folder=place.folder,
            resource=self.resource,
            listing=self.listing,
            serve=lambda path: PluginServer(path, servicer),
            metrics=metrics,
            ready=lambda: self._ever,
            forgotten=self._is_forgotten,
            aloof=place.kubelet == "",
            kubelet=place.kubelet_socket,
            poll_seconds=place.poll_seconds,
        )

    def post(self, resource: Resource) -> None:
        """Tell kubelet of another list."""
        self.devices = len(resource.devices)
        self._ever = self._ever or bool(resource.devices)
        healthy = frozenset(device.id for device in resource.devices if not device.problem)
        if healthy != self._healthy:
            self._healthy, self._news_at = healthy, self._clock()
        self.listing.post(self._list(resource))
        self.registrar.wake()

    def problem(self) -> str | None:
        """Return why the server is not as it should be, None if it answers or has no work yet."""
        server = self.registrar.server
        if server is not None and not server.answers():
            return f"the plugin does not answer on {server.path}"
        return None

    def waits_for(self) -> str | None:
        """Return why kubelet does not know of the devices, None if it does or there are none."""
        if not self.devices or self.registrar.registered or self.registrar.aloof:
            return None
        return f"{self.resource}: {self.registrar.problem or 'waiting for kubelet'}"

    def _is_forgotten(self) -> bool:
        """Return whether kubelet gives out none of the devices, long after it was told of them.

        When an older connection ends while a newer one registers, kubelets up to 1.36 may take the
        devices from the newer one and leave its stream open. Nothing else shows it.
        """
        offer = self._offer()
        if offer is None or not self._healthy or offer.at - self._news_at < SETTLED:
            return False
        if self._healthy & offer.devices.get(self.resource, frozenset()):
            return False
        self._news_at = self._clock()
        _log.warning("kubelet has forgotten the devices", resource=self.resource)
        return True

    def _list(self, resource: Resource) -> api_pb2.ListAndWatchResponse:
        return list_devices(resource, numa_hints=self._numa_hints)

    def _wake(self) -> None:
        # A stream has opened or ended: what kubelet said before is about another one.
        self._news_at = self._clock()
        self.registrar.wake()


class Endpoints:
    """The endpoints of a node. `make` builds one, `start` runs its registrar in a thread.

    An endpoint is made when its resource is first offered and stays: kubelet is told that there is
    nothing left, which no restart and no closed socket would tell it so soon.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[str], Endpoint],
        start: Callable[[Endpoint], None],
    ) -> None:
        self._folder = folder
        self._make = make
        self._start = start
        self._lock = threading.Lock()
        self._known: dict[str, Endpoint] = {}

    def sweep(self) -> None:
        """Remove the sockets of former processes; before the first endpoint."""
        swept = sockets.sweep(self._folder)
        if swept:
            _log.info("sockets of former processes removed", names=swept)

    def offer(self, stock: Stock) -> None:
        """Tell kubelet of all resources, those that are gone by an empty list."""
        with self._lock:
            for name, resource in stock.division.resources.items():
                if name not in self._known:
                    self._known[name] = self._make(name)
                    self._start(self._known[name])
                self._known[name].post(resource)
            for name, endpoint in self._known.items():
                if name not in stock.division.resources:
                    endpoint.post(Resource(name))

    def all(self) -> tuple[Endpoint, ...]:
        """Return all endpoints."""
        return tuple(self._known.values())
