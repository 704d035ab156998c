"""The gRPC server behind one socket file."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from deviceplugin.errors import RegistrationError
from deviceplugin.pluginregistration.v1 import api_pb2_grpc as registration_grpc
from deviceplugin.serving.sockets import LONGEST_PATH
from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

THREADS = 8
"""A ListAndWatch stream keeps one for its life; there are at most `listing.MOST_STREAMS`."""


class PluginServer:
    """Serves the plugin on a unix socket, from construction until `stop`.

    With an `introduction` kubelet's plugin watcher can find it. Raises RegistrationError if the
    socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        servicer: api_pb2_grpc.DevicePluginServicer,
        introduction: registration_grpc.RegistrationServicer | None = None,
    ) -> None:
        self.path = path
        if len(str(path).encode()) > LONGEST_PATH:
            raise RegistrationError(f"{path}: longer than {LONGEST_PATH} bytes, no socket fits")
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rpc")
        self._server = grpc.server(self._pool)
        api_pb2_grpc.add_DevicePluginServicer_to_server(servicer, self._server)
        if introduction is not None:
            registration_grpc.add_RegistrationServicer_to_server(introduction, self._server)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise RegistrationError(f"{path}: no socket can be made there: {error}") from error
        self._server.start()

    def stop(self, grace: float = 0.0) -> None:
        """End all calls after `grace` seconds, and remove the socket."""
        self._server.stop(grace).wait()
        self._pool.shutdown(wait=False)
        # gRPC removes it too, but not when the file was replaced meanwhile.
        with contextlib.suppress(OSError):
            self.path.unlink()

    def answers(self, timeout: float = 1.0) -> bool:
        """Return whether the server answers a call on its own socket."""
        return ask_options(self.path, timeout)


def ask_options(path: Path, timeout: float) -> bool:
    """Call GetDevicePluginOptions as kubelet would."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            api_pb2_grpc.DevicePluginStub(channel).GetDevicePluginOptions(
                api_pb2.Empty(), timeout=timeout
            )
        except grpc.RpcError:
            return False
    return True
