"""Keeps the plugin registered with kubelet, whatever becomes of either's socket.

kubelet forgets a plugin when its ListAndWatch stream ends, and never asks again; when kubelet
restarts it deletes every socket in the folder and creates its own anew. So: a stream that ends, a
kubelet.sock that is another file than before, and an own socket that is gone all lead to a new
registration, the last one to a new server first, since a socket cannot be bound twice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import grpc
import structlog

from deviceplugin.backoff import Backoff
from deviceplugin.errors import RegistrationError
from deviceplugin.metrics import Cause, Metrics
from deviceplugin.outcomes import FAILED, OK
from deviceplugin.serving import sockets
from deviceplugin.serving.listing import Listing
from deviceplugin.serving.server import PluginServer
from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
REGISTER_TIMEOUT: Final = 12.0
"""Seconds: inside the call kubelet dials back, for which it takes up to 10."""

STREAM_TIMEOUT: Final = 5.0
"""Seconds within which kubelet opens ListAndWatch after a registration; it takes milliseconds."""

SHORT_LIFE: Final = 1.0
"""Seconds; a stream that ends sooner is no sign that the registration was worth it."""

FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 5.0

_log = structlog.get_logger("deviceplugin.registrar")


class Registrar:
    """Serves and registers until `stop`; `run` is the work of one thread.

    `serve` starts a server on a socket path; `ready` says whether there is something to
    advertise (a node whose NVML does not work must not be offered to pods). `kubelet` is its
    socket if it does not stand in the folder. `forgotten` says whether kubelet knows of no device
    though the stream is open. `aloof` serves and never registers.
    """

    def __init__(
        self,
        *,
        folder: Path,
        resource: str,
        listing: Listing,
        serve: Callable[[Path], PluginServer],
        metrics: Metrics,
        ready: Callable[[], bool] = lambda: True,
        forgotten: Callable[[], bool] = lambda: False,
        aloof: bool = False,
        poll_seconds: float = 0.05,
        stream_timeout: float = STREAM_TIMEOUT,
        token: str | None = None,
        kubelet: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._kubelet = kubelet or folder / KUBELET_SOCKET
        self._resource = resource
        self._listing = listing
        self._serve = serve
        self._metrics = metrics
        self._ready = ready
        self._forgotten = forgotten
        self.aloof = aloof
        self._poll = poll_seconds
        self._stream_timeout = stream_timeout
        self._token = token or sockets.new_token()
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._pause = Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._server: PluginServer | None = None
        self._number = 0
        self._registered_with: sockets.Identity | None = None
        self._registered_at = 0.0
        self._opened_before = 0
        self._ever = False
        self._short_lives = 0
        self.problem = "not registered with kubelet yet"

    @property
    def server(self) -> PluginServer | None:
        """The server of now, None before the first or while it is replaced."""
        return self._server

    @property
    def registered(self) -> bool:
        """Whether kubelet watches the device list."""
        return self._registered_with is not None and self._listing.active > 0

    def wake(self) -> None:
        """Look now rather than at the next poll; called when a stream opens or ends."""
        self._wake.set()

    def run(self) -> None:
        """Serve and register until `stop`."""
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._step() if self._ready() else self._poll
            self._metrics.registered.labels(self._resource).set(self.registered)
            self._wake.wait(pause)
        self._listing.close()
        if self._server is not None:
            self._server.stop()

    def stop(self) -> None:
        """Make `run` end: streams end, the socket is removed."""
        self._stopping.set()
        self._wake.set()

    def _step(self) -> float:
        """Do what is due; return how many seconds to rest."""
        if self.aloof:
            return self._serve_only()
        here = sockets.identify(self._kubelet)
        if here is None:
            # Nobody to register with. An own socket that is gone waits too: a kubelet that
            # starts deletes whatever it finds.
            self.problem = f"there is no {self._kubelet}"
            return self._poll
        cause = self._why(here)
        if cause is None:
            if self._clock() - self._registered_at > SHORT_LIFE:
                self._pause.reset()
                self._short_lives = 0
            return self._poll
        self._slow_down(cause, here)
        try:
            self._renew(cause)
            self._register(here)
        except RegistrationError as error:
            self._registered_with = None
            self.problem = str(error)
            self._metrics.registrations.labels(str(cause), FAILED).inc()
            pause = self._pause.next()
            _log.warning("registration failed", cause=str(cause), problem=str(error), pause=pause)
            self._wait_for_change(here, pause)
            return 0.0
        self.problem = ""
        self._ever = True
        self._metrics.registrations.labels(str(cause), OK).inc()
        _log.info("registered", cause=str(cause), resource=self._resource)
        return self._poll

    def _serve_only(self) -> float:
        """Have a socket, for whoever knows of it."""
        lost = self._server is not None and sockets.identify(self._server.path) is None
        try:
            self._renew(Cause.OWN_SOCKET if lost else Cause.START)
        except RegistrationError as error:
            self.problem = str(error)
            return self._pause.next()
        self.problem = "kubelet is not told of it, as the configuration says"
        return self._poll

    def _why(self, here: sockets.Identity) -> Cause | None:
        """Return why to register now, None if all is well."""
        if self._server is not None and sockets.identify(self._server.path) is None:
            return Cause.OWN_SOCKET
        if self._registered_with is None:
            return Cause.RETRY if self._ever or self._server is not None else Cause.START
        if here != self._registered_with:
            return Cause.KUBELET_SOCKET
        if self._listing.active:
            return Cause.FORGOTTEN if self._forgotten() else None
        if self._listing.opened > self._opened_before:
            return Cause.STREAM_ENDED
        if self._clock() - self._registered_at > self._stream_timeout:
            return Cause.STREAM_MISSING
        return None

    def _renew(self, cause: Cause) -> None:
        """Have a server with a socket file; a new one if there is none or its file is gone."""
        if self._server is not None and cause not in (Cause.OWN_SOCKET, Cause.FORGOTTEN):
            return
        if self._server is not None:
            # First, and not after: kubelets up to 1.36 disconnect the new client of a resource
            # when an older connection ends.
            old, self._server = self._server, None
            old.stop()
        self._number += 1
        name = sockets.own_name(os.getpid(), self._token, self._number)
        self._server = self._serve(self._folder / name)

    def _register(self, here: sockets.Identity) -> None:
        if self._server is None:
            raise RegistrationError("there is no server to register")
        self._opened_before = self._listing.opened
        # A kubelet that starts deletes all sockets and then listens: what is there once it listens
        # stays. To register a socket that it has deleted costs the 10 s for which it tries to dial
        # back, and the thread that could make another one is waiting for its answer.
        if not sockets.answers(self._kubelet):
            raise RegistrationError(f"nobody listens on {self._kubelet}")
        if sockets.identify(self._server.path) is None:
            raise RegistrationError(f"{self._server.path} is gone")
        with grpc.insecure_channel(f"unix:{self._kubelet}") as channel:
            try:
                api_pb2_grpc.RegistrationStub(channel).Register(
                    api_pb2.RegisterRequest(
                        version=VERSION,
                        endpoint=self._server.path.name,
                        resource_name=self._resource,
                        options=api_pb2.DevicePluginOptions(
                            get_preferred_allocation_available=True
                        ),
                    ),
                    timeout=REGISTER_TIMEOUT,
                )
            except grpc.RpcError as error:
                # Every error of a stub is a Call too; the library's types do not say so.
                call = cast("grpc.Call", error)
                raise RegistrationError(
                    f"kubelet at {self._kubelet}: {call.code().name}: {call.details()}"
                ) from error
        self._metrics.registered_at.labels(self._resource).set_to_current_time()
        self._registered_with = here
        self._registered_at = self._clock()

    def _slow_down(self, cause: Cause, here: sockets.Identity) -> None:
        """Rest if kubelet has closed the stream soon after each of the last registrations.

        After the first such end there is no rest: kubelets up to 1.36 close the new stream once
        when an older one ends.
        """
        if cause is not Cause.STREAM_ENDED:
            return
        if self._clock() - self._registered_at > SHORT_LIFE:
            self._short_lives = 0
            self._pause.reset()
            return
        self._short_lives += 1
        if self._short_lives > 1:
            self._wait_for_change(here, self._pause.next())

    def _wait_for_change(self, here: sockets.Identity, pause: float) -> None:
        """Rest after a failure, but not once kubelet.sock has become another file."""
        end = self._clock() + pause
        while not self._stopping.is_set():
            left = end - self._clock()
            if left <= 0:
                return
            if sockets.identify(self._kubelet) != here:
                self._pause.reset()
                return
            self._stopping.wait(min(left, self._poll))
