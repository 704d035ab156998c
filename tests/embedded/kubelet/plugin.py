"""A device plugin on a script: real sockets, answers as the test says, every call written down."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

GPU = "nvidia.com/gpu"

Prefer = Callable[[list[str], list[str], int], Sequence[str]]
Answer = Callable[[list[str]], api_pb2.AllocateResponse]


class RefusedError(Exception):
    """What a script raises to fail an RPC: its text becomes the details."""


def healthy(*names: str) -> list[api_pb2.Device]:
    """List devices without a NUMA node."""
    return [api_pb2.Device(ID=name, health="Healthy") for name in names]


def on_nodes(**nodes: int) -> list[api_pb2.Device]:
    """List healthy devices, each on a NUMA node."""
    return [
        api_pb2.Device(
            ID=name,
            health="Healthy",
            topology=api_pb2.TopologyInfo(nodes=[api_pb2.NUMANode(ID=node)]),
        )
        for name, node in nodes.items()
    ]


def with_env(devices: list[str]) -> api_pb2.AllocateResponse:
    """Answer Allocate as GPU plugins do."""
    env = {"NVIDIA_VISIBLE_DEVICES": ",".join(sorted(devices))}
    return api_pb2.AllocateResponse(
        container_responses=[api_pb2.ContainerAllocateResponse(envs=env)]
    )


class Plugin(api_pb2_grpc.DevicePluginServicer):
    """One plugin process. `calls` grows by (RPC name, request)."""

    def __init__(
        self,
        directory: Path,
        devices: Sequence[api_pb2.Device],
        *,
        resource: str = GPU,
        endpoint: str = "p.sock",
        prefer: Prefer | None = None,
        answer: Answer = with_env,
        pre_start: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.directory = directory
        self.resource = resource
        self.endpoint = endpoint
        self.prefer = prefer
        self.answer = answer
        self.pre_start = pre_start
        self.calls: list[tuple[str, object]] = []
        self._devices = list(devices)
        self._streams: list[queue.SimpleQueue[list[api_pb2.Device] | None]] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(12)
        self._server = grpc.server(self._pool)
        api_pb2_grpc.add_DevicePluginServicer_to_server(self, self._server)

    def serve(self) -> Plugin:
        """Listen on the endpoint."""
        self._server.add_insecure_port(f"unix:{self.directory / self.endpoint}")
        self._server.start()
        return self

    def register(self, version: str = "v1beta1", **options: bool) -> None:
        """Register with kubelet; raises grpc.RpcError when it refuses."""
        with grpc.insecure_channel(
            f"unix:{self.directory}/kubelet.sock", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            api_pb2_grpc.RegistrationStub(channel).Register(
                api_pb2.RegisterRequest(
                    version=version,
                    endpoint=self.endpoint,
                    resource_name=self.resource,
                    options=api_pb2.DevicePluginOptions(**options),
                ),
                timeout=15,
            )

    def send(self, devices: Sequence[api_pb2.Device]) -> None:
        """Send a new list on every open stream."""
        with self._lock:
            self._devices = list(devices)
            for stream in self._streams:
                stream.put(self._devices)

    def end_streams(self) -> None:
        """End every open ListAndWatch; the socket goes on."""
        with self._lock:
            streams, self._streams = self._streams, []
        for stream in streams:
            stream.put(None)

    def stop(self) -> None:
        """Die."""
        self.end_streams()
        self._server.stop(None).wait()
        self._pool.shutdown(wait=False)

    def called(self, name: str) -> list[object]:
        """Return the requests of one RPC so far."""
        return [request for called, request in self.calls if called == name]

    @property
    def allocated(self) -> list[list[str]]:
        """The device IDs of each Allocate so far."""
        return [
            sorted(r.container_requests[0].devices_ids)
            for r in self.called("Allocate")
            if isinstance(r, api_pb2.AllocateRequest)
        ]

    @property
    def asked(self) -> list[tuple[list[str], list[str], int]]:
        """Available IDs, IDs to include and size of each GetPreferredAllocation so far."""
        return [
            (sorted(c.available_deviceIDs), sorted(c.must_include_deviceIDs), c.allocation_size)
            for r in self.called("GetPreferredAllocation")
            if isinstance(r, api_pb2.PreferredAllocationRequest)
            for c in r.container_requests
        ]

    # The RPCs

    def GetDevicePluginOptions(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.Empty, context: grpc.ServicerContext
    ) -> api_pb2.DevicePluginOptions:
        """Tell the options that the script has a part for."""
        self.calls.append(("GetDevicePluginOptions", request))
        return api_pb2.DevicePluginOptions(
            pre_start_required=self.pre_start is not None,
            get_preferred_allocation_available=self.prefer is not None,
        )

    def ListAndWatch(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.Empty, context: grpc.ServicerContext
    ) -> Iterator[api_pb2.ListAndWatchResponse]:
        """Send the list now and whenever `send` is called."""
        self.calls.append(("ListAndWatch", request))
        stream: queue.SimpleQueue[list[api_pb2.Device] | None] = queue.SimpleQueue()
        with self._lock:
            self._streams.append(stream)
            stream.put(self._devices)
        context.add_callback(lambda: stream.put(None))
        while (devices := stream.get()) is not None:
            yield api_pb2.ListAndWatchResponse(devices=devices)

    def GetPreferredAllocation(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.PreferredAllocationRequest, context: grpc.ServicerContext
    ) -> api_pb2.PreferredAllocationResponse:
        """Answer as the script says."""
        self.calls.append(("GetPreferredAllocation", request))
        asked = request.container_requests[0]
        assert self.prefer is not None
        try:
            chosen = self.prefer(
                list(asked.available_deviceIDs),
                list(asked.must_include_deviceIDs),
                asked.allocation_size,
            )
        except RefusedError as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
        return api_pb2.PreferredAllocationResponse(
            container_responses=[api_pb2.ContainerPreferredAllocationResponse(deviceIDs=chosen)]
        )

    def Allocate(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.AllocateRequest, context: grpc.ServicerContext
    ) -> api_pb2.AllocateResponse:
        """Answer as the script says."""
        self.calls.append(("Allocate", request))
        try:
            return self.answer(list(request.container_requests[0].devices_ids))
        except RefusedError as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))

    def PreStartContainer(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.PreStartContainerRequest, context: grpc.ServicerContext
    ) -> api_pb2.PreStartContainerResponse:
        """Let the script look."""
        self.calls.append(("PreStartContainer", request))
        assert self.pre_start is not None
        try:
            self.pre_start(list(request.devices_ids))
        except RefusedError as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
        return api_pb2.PreStartContainerResponse()
