"""A device plugin as kubelet calls it: one connection to its socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol, TypeVar

import grpc

from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from embedded.kubelet.devices import Device, DeviceNode, Injection, Mount, Options
from embedded.kubelet.errors import PluginError

DIAL_TIMEOUT: Final = 10.0
"""Seconds that kubelet waits for the plugin's socket, inside Register."""

PRE_START_TIMEOUT: Final = 30.0
"""Seconds that PreStartContainer may take; the other calls may take for ever."""

_CHANNEL_OPTIONS: Final = (
    ("grpc.default_authority", "localhost"),
    # Without it two connections to one path share a transport, and one's end is the other's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", 4 << 20),
)

_GO_CODES: Final = {"OK": "OK", "CANCELLED": "Canceled"}

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class ListTaker(Protocol):
    """Who is told of device lists."""

    def listed(self, resource: str, devices: Iterable[Device]) -> None:
        """Take a list that replaces the one before."""


def go_error(error: grpc.RpcError) -> str:
    """Word an RPC's failure as grpc-go does, since kubelet quotes it in pod statuses."""
    call: object = error  # a failed call is both; the stubs do not know
    code = call.code().name if isinstance(call, grpc.Call) else "UNKNOWN"
    details = call.details() if isinstance(call, grpc.Call) else str(error)
    name = _GO_CODES.get(code) or "".join(part.capitalize() for part in code.split("_"))
    return f"rpc error: code = {name} desc = {details}"


class PluginConnection:
    """One accepted registration. `close` may be called from any thread."""

    def __init__(self, resource: str, socket: Path) -> None:
        self.resource = resource
        self.socket = socket
        self.closed = threading.Event()
        self._settled = threading.Event()
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_CHANNEL_OPTIONS)
        self._stub = api_pb2_grpc.DevicePluginStub(self._channel)

    def dial(self, timeout: float = DIAL_TIMEOUT) -> Options:
        """Connect and ask for the options. Raises PluginError."""
        self._channel.subscribe(self._on_state, try_to_connect=True)
        in_time = self._settled.wait(timeout)
        if self.closed.is_set() or not in_time:
            raise PluginError(
                f"failed to dial device plugin {self.socket}: context deadline exceeded"
            )
        self._channel.unsubscribe(self._on_state)
        answer = self._call(self._stub.GetDevicePluginOptions, api_pb2.Empty())
        return Options(
            pre_start_required=answer.pre_start_required,
            get_preferred_allocation_available=answer.get_preferred_allocation_available,
        )

    def follow(self, taker: ListTaker) -> str:
        """Hand on every device list until the stream ends; return why it did."""
        try:
            messages = self._stub.ListAndWatch(api_pb2.Empty())
        except ValueError:
            return "closed"  # by the end of an older connection, before the stream was opened
        try:
            for message in messages:
                if self.closed.is_set():
                    break
                taker.listed(self.resource, [_device(device) for device in message.devices])
        except grpc.RpcError as error:
            return go_error(error)
        return "EOF"

    def close(self) -> None:
        """End the connection with all its calls."""
        self.closed.set()
        self._settled.set()
        self._channel.close()

    def preferred_allocation(
        self, available: list[str], must_include: list[str], size: int
    ) -> list[str]:
        """Call GetPreferredAllocation. Raises PluginError."""
        request = api_pb2.PreferredAllocationRequest(
            container_requests=[
                api_pb2.ContainerPreferredAllocationRequest(
                    available_deviceIDs=available,
                    must_include_deviceIDs=must_include,
                    allocation_size=size,
                )
            ]
        )
        answer = self._call(self._stub.GetPreferredAllocation, request)
        return list(answer.container_responses[0].deviceIDs) if answer.container_responses else []

    def allocate(self, devices: list[str]) -> Injection:
        """Call Allocate. Raises PluginError, also for an answer without a container."""
        request = api_pb2.AllocateRequest(
            container_requests=[api_pb2.ContainerAllocateRequest(devices_ids=devices)]
        )
        answer = self._call(self._stub.Allocate, request)
        if not answer.container_responses:
            raise PluginError("no containers return in allocation response")
        return _injection(answer.container_responses[0])

    def pre_start(self, devices: list[str]) -> None:
        """Call PreStartContainer. Raises PluginError."""
        request = api_pb2.PreStartContainerRequest(devices_ids=devices)
        self._call(lambda r: self._stub.PreStartContainer(r, timeout=PRE_START_TIMEOUT), request)

    def _on_state(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._settled.set()

    def _call(self, method: Callable[[Request], Reply], request: Request) -> Reply:
        try:
            return method(request)
        except grpc.RpcError as error:
            raise PluginError(go_error(error)) from error
        except ValueError as error:  # what grpc raises on a closed channel
            raise PluginError(f"rpc error: code = Canceled desc = {error}") from error


def _device(device: api_pb2.Device) -> Device:
    return Device(
        id=device.ID,
        healthy=device.health == "Healthy",
        numa=tuple(node.ID for node in device.topology.nodes),
    )


def _injection(answer: api_pb2.ContainerAllocateResponse) -> Injection:
    return Injection(
        env=dict(answer.envs),
        mounts=tuple(Mount(m.container_path, m.host_path, m.read_only) for m in answer.mounts),
        device_nodes=tuple(
            DeviceNode(d.container_path, d.host_path, d.permissions) for d in answer.devices
        ),
        annotations=dict(answer.annotations),
        cdi_devices=tuple(device.name for device in answer.cdi_devices),
    )
