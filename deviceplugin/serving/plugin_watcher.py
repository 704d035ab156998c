"""Registration by kubelet's plugin watcher: a socket in plugins_registry, and kubelet comes to it.

kubelet walks that folder when it starts and is told by the kernel of every new socket, so a plugin
that runs through kubelet's restart is found again without doing anything. What it must do by itself
is one thing: when the stream ends and the socket stays where it is, nobody asks again, and only a
socket that is created anew counts as new.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import structlog

from deviceplugin.backoff import Backoff
from deviceplugin.errors import RegistrationError
from deviceplugin.metrics import Cause, Metrics
from deviceplugin.outcomes import FAILED, OK
from deviceplugin.pluginregistration.v1 import api_pb2, api_pb2_grpc
from deviceplugin.serving import sockets
from deviceplugin.serving.listing import Listing
from deviceplugin.serving.registrar import VERSION
from deviceplugin.serving.server import PluginServer

TYPE: Final = "DevicePlugin"
FIRST_PATIENCE: Final = 3.0
"""Seconds without a stream after which the socket is created anew.

A kubelet that restarts is back within a third of a second and finds the old one; one that is away
for longer finds any."""
LAST_PATIENCE: Final = 60.0

_log = structlog.get_logger("deviceplugin.plugin_watcher")


class Introduction(api_pb2_grpc.RegistrationServicer):
    """Tells kubelet who we are, and hears whether it took us."""

    def __init__(self, resource: str, hear: Callable[[bool, str], None]) -> None:
        self._resource = resource
        self._hear = hear

    def GetInfo(  # noqa: N802 -- kubelet's name
        self,
        request: api_pb2.InfoRequest,  # noqa: ARG002 -- gRPC's signature
        context: grpc.ServicerContext,  # noqa: ARG002 -- as above
    ) -> api_pb2.PluginInfo:
        """Answer within kubelet's second: an empty endpoint is this very socket."""
        return api_pb2.PluginInfo(type=TYPE, name=self._resource, supported_versions=[VERSION])

    def NotifyRegistrationStatus(  # noqa: N802 -- kubelet's name
        self,
        request: api_pb2.RegistrationStatus,
        context: grpc.ServicerContext,  # noqa: ARG002 -- gRPC's signature
    ) -> api_pb2.RegistrationStatusResponse:
        """Take note."""
        self._hear(request.plugin_registered, request.error)
        return api_pb2.RegistrationStatusResponse()


Serve = Callable[[Path, Introduction], PluginServer]


class WatchedRegistrar:
    """Keeps a socket in `folder` for kubelet to find, until `stop`; `run` is one thread's work.

    It stands where the Registrar stands that calls kubelet: `ready` says whether there is
    something to offer, `serve` starts a server that introduces itself too.
    """

    aloof = False

    def __init__(
        self,
        *,
        folder: Path,
        resource: str,
        listing: Listing,
        serve: Serve,
        metrics: Metrics,
        ready: Callable[[], bool] = lambda: True,
        forgotten: Callable[[], bool] = lambda: False,
        poll_seconds: float = 0.05,
        patience: float = FIRST_PATIENCE,
        token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._resource = resource
        self._listing = listing
        self._serve = serve
        self._metrics = metrics
        self._ready = ready
        self._forgotten = forgotten
        self._poll = poll_seconds
        self._token = token or sockets.new_token()
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._patience = Backoff(patience, max(patience, LAST_PATIENCE))
        self._server: PluginServer | None = None
        self._number = 0
        self._cause = Cause.START
        self._give_up_at = 0.0
        self.problem = "kubelet has not come yet"

    @property
    def server(self) -> PluginServer | None:
        """The server of now, None before the first or while it is replaced."""
        return self._server

    @property
    def registered(self) -> bool:
        """Whether kubelet watches the device list."""
        return self._listing.active > 0

    def wake(self) -> None:
        """Look now rather than at the next poll; called when a stream opens or ends."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` end: streams end, the socket is removed."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Have a socket until `stop`."""
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._step() if self._ready() else self._poll
            self._metrics.registered.labels(self._resource).set(self.registered)
            self._wake.wait(pause)
        self._listing.close()
        if self._server is not None:
            self._server.stop()

    def _step(self) -> float:
        """Do what is due; return how many seconds to rest."""
        now = self._clock()
        cause = self._why(now)
        if cause is None:
            return self._poll
        try:
            self._renew(cause)
        except RegistrationError as error:
            self.problem = str(error)
            self._metrics.registrations.labels(str(cause), FAILED).inc()
            _log.warning("no socket for kubelet to find", problem=str(error))
            return self._patience.next()
        self._give_up_at = now + self._patience.next()
        return self._poll

    def _why(self, now: float) -> Cause | None:
        """Return why to make a socket now, None if all is well or still may become so."""
        if self._server is None:
            return Cause.START
        if sockets.identify(self._server.path) is None:
            return Cause.OWN_SOCKET
        if self._listing.active:
            self._patience.reset()
            self._give_up_at = 0.0
            return Cause.FORGOTTEN if self._forgotten() else None
        if not self._give_up_at:
            self._give_up_at = now + self._patience.next()
        if now < self._give_up_at:
            return None
        return Cause.STREAM_ENDED if self._listing.opened else Cause.STREAM_MISSING

    def _renew(self, cause: Cause) -> None:
        if self._server is not None:
            # First, and not after: kubelets up to 1.36 disconnect the new client of a resource
            # when an older connection ends.
            old, self._server = self._server, None
            old.stop()
        self._number += 1
        self._cause = cause
        name = sockets.own_name(os.getpid(), self._token, self._number)
        self._server = self._serve(self._folder / name, Introduction(self._resource, self._hear))
        _log.info("kubelet may come", cause=str(cause), socket=name)

    def _hear(self, registered: bool, error: str) -> None:
        result = OK if registered else FAILED
        self._metrics.registrations.labels(str(self._cause), result).inc()
        # What comes next to the same socket is kubelet's own doing.
        self._cause = Cause.KUBELET_SOCKET
        self.problem = "" if registered else f"kubelet refuses: {error}"
        if registered:
            self._metrics.registered_at.labels(self._resource).set_to_current_time()
            _log.info("registered", resource=self._resource)
        else:
            _log.warning("kubelet refuses the plugin", problem=error)
