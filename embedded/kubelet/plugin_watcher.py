"""kubelet's plugin watcher: sockets that appear in plugins_registry are asked who they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from deviceplugin.pluginregistration.v1 import api_pb2, api_pb2_grpc
from embedded.kubelet.endpoint import go_error
from embedded.kubelet.errors import PluginError, RegistrationError
from embedded.kubelet.journal import Journal

TYPE: Final = "DevicePlugin"
VERSION: Final = "v1beta1"
INFO_TIMEOUT: Final = 1.0
NOTIFY_TIMEOUT: Final = 5.0
LOOK_PERIOD: Final = 0.05
"""Seconds; the real one is told by the kernel, and reconciles once a second."""
FIRST_PAUSE: Final = 0.5
LAST_PAUSE: Final = 122.0

_Identity = tuple[int, int]


class PluginWatcher:
    """Registers what stands in a folder, until `stop`.

    `register` is told of a resource and its socket, and raises PluginError or RegistrationError.
    A socket is tried until it is taken, with longer and longer pauses, and then never again: only
    one that is created anew counts as new.
    """

    def __init__(
        self, folder: Path, register: Callable[[str, Path], None], journal: Journal
    ) -> None:
        self._folder = folder
        self._register = register
        self._journal = journal
        self._taken: dict[Path, _Identity] = {}
        self._retry: dict[Path, tuple[float, float]] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(LOOK_PERIOD)

    def stop(self) -> None:
        """Make `run` end soon."""
        self._stopping.set()

    def look(self) -> None:
        """Look once."""
        present = self._sockets()
        for gone in (self._taken.keys() | self._retry.keys()) - present.keys():
            self._taken.pop(gone, None)
            self._retry.pop(gone, None)
        for path, identity in present.items():
            due, pause = self._retry.get(path, (0.0, FIRST_PAUSE))
            if self._taken.get(path) == identity or time.monotonic() < due:
                continue
            if self._try(path):
                self._taken[path] = identity
                self._retry.pop(path, None)
            else:
                self._retry[path] = (time.monotonic() + pause, min(2 * pause, LAST_PAUSE))

    def _sockets(self) -> dict[Path, _Identity]:
        found: dict[Path, _Identity] = {}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                status = path.stat(follow_symlinks=False)
            except OSError:
                continue
            if path.is_socket() and not path.name.startswith("."):
                found[path] = (status.st_ino, status.st_ctime_ns)
        return found

    def _try(self, path: Path) -> bool:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = api_pb2_grpc.RegistrationStub(channel)
            try:
                info = stub.GetInfo(api_pb2.InfoRequest(), timeout=INFO_TIMEOUT)
            except grpc.RpcError as error:
                self._journal.note("refused", path.name, f"failed to get plugin info: {error}")
                return False
            problem = self._judge(info, path)
            try:
                stub.NotifyRegistrationStatus(
                    api_pb2.RegistrationStatus(plugin_registered=not problem, error=problem),
                    timeout=NOTIFY_TIMEOUT,
                )
            except grpc.RpcError as error:
                self._journal.note("refused", path.name, go_error(error))
                return False
        return not problem

    def _judge(self, info: api_pb2.PluginInfo, path: Path) -> str:
        if info.type != TYPE:
            return f"no handler registered for plugin type: {info.type} at socket {path}"
        if VERSION not in info.supported_versions:
            return f"plugin validation failed: versions {list(info.supported_versions)}"
        try:
            self._register(info.name, Path(info.endpoint) if info.endpoint else path)
        except (PluginError, RegistrationError) as error:
            self._journal.note("refused", info.name, str(error))
            return str(error)
        return ""
