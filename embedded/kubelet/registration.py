"""The Registration service on kubelet.sock, and the connections that come of it."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final, NoReturn

import grpc

from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.endpoint import DIAL_TIMEOUT, PluginConnection
from embedded.kubelet.errors import PluginError, RegistrationError
from embedded.kubelet.journal import Journal

VERSION: Final = "v1beta1"

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def legal_resource_name(name: str) -> bool:
    """Tell whether a plugin may serve this resource: ``domain/name``, not Kubernetes' own.

    >>> [legal_resource_name(n) for n in ("nvidia.com/gpu", "gpu", "kubernetes.io/gpu", "a/b/c")]
    [True, False, False, False]
    """
    domain, slash, short = name.partition("/")
    if not slash or "kubernetes.io/" in name or name.startswith("requests."):
        return False
    # The quota name "requests." + name must be legal as well, so 9 characters less than 253.
    return len(domain) <= 244 and bool(_DOMAIN.fullmatch(domain) and _NAME.fullmatch(short))


class Registrar(api_pb2_grpc.RegistrationServicer):
    """Answers Register and follows the device list of every plugin that registered.

    `disconnect_by_resource` is how kubelet up to 1.36 does it: when a stream ends, whatever is
    registered for its resource at that time is disconnected. Otherwise, as newer ones do, only the
    connection whose stream ended. A refused or dead plugin is never tried again.
    """

    def __init__(
        self,
        directory: Path,
        devices: DeviceManager,
        journal: Journal,
        *,
        disconnect_by_resource: bool = True,
        dial_timeout: float = DIAL_TIMEOUT,
    ) -> None:
        self._directory = directory
        self._devices = devices
        self._journal = journal
        self._by_resource = disconnect_by_resource
        self._dial_timeout = dial_timeout
        self._lock = threading.Lock()
        self._current: dict[tuple[str, str], PluginConnection] = {}
        self._open: set[PluginConnection] = set()
        self._stopped = False

    def Register(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.RegisterRequest, context: grpc.ServicerContext
    ) -> api_pb2.Empty:
        """Dial the plugin back; answer when it has told its options."""
        try:
            self._accept(request)
        except (RegistrationError, PluginError) as error:
            self._journal.note("refused", request.resource_name, str(error))
            _abort(context, str(error))
        return api_pb2.Empty()

    def take(self, resource: str, socket: Path) -> None:
        """Take a plugin that the plugin watcher has found.

        Raises RegistrationError or PluginError.
        """
        self._accept(
            api_pb2.RegisterRequest(version=VERSION, endpoint=str(socket), resource_name=resource)
        )

    def stop(self) -> None:
        """Close every connection without a word to the device manager: the process ends."""
        with self._lock:
            self._stopped = True
            connections = tuple(self._open)
        for connection in connections:
            connection.close()

    def _accept(self, request: api_pb2.RegisterRequest) -> None:
        resource = request.resource_name
        if request.version != VERSION:
            raise RegistrationError(
                f'requested API version "{request.version}" is not supported by kubelet.'
                f' Supported version is "{VERSION}"'
            )
        if not legal_resource_name(resource):
            raise RegistrationError(f'the ResourceName "{resource}" is invalid')
        connection = PluginConnection(resource, self._directory / request.endpoint)
        with self._lock:
            if self._stopped:
                raise RegistrationError("kubelet is stopping")
            self._current[self._key(connection)] = connection
            self._open.add(connection)
        try:
            options = connection.dial(self._dial_timeout)
        except PluginError:
            self._forget(connection)
            connection.close()
            raise
        self._devices.connected(resource, connection, options)
        self._journal.note("registered", resource, request.endpoint)
        threading.Thread(
            target=self._follow, args=(connection,), name=f"list-{request.endpoint}", daemon=True
        ).start()

    def _follow(self, connection: PluginConnection) -> None:
        connection.follow(self._devices)
        with self._lock:
            if self._stopped:
                return
            ended = self._current.pop(self._key(connection), None)
            self._open.discard(connection)
        connection.close()
        if ended is None:
            return
        # Up to 1.36 `ended` may be a newer plugin's connection, which then dies with this one.
        # The devices go first. kubelet closes first, and a plugin that registers again before the
        # next instruction stays without devices; closing takes longer here than a registration.
        if self._by_resource:
            self._devices.disconnected(connection.resource)
        else:
            self._devices.disconnected(connection.resource, ended)
        with self._lock:
            self._open.discard(ended)
        ended.close()

    def _forget(self, connection: PluginConnection) -> None:
        with self._lock:
            self._open.discard(connection)
            self._current.pop(self._key(connection), None)

    def _key(self, connection: PluginConnection) -> tuple[str, str]:
        socket = "" if self._by_resource else str(connection.socket)
        return connection.resource, socket


def _abort(context: grpc.ServicerContext, details: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, details)
    raise AssertionError("abort raises")
