"""The plugin's five RPCs: translate, delegate, measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

import grpc
import structlog

from deviceplugin.admission.allocation import Request
from deviceplugin.admission.desk import Desk, Later
from deviceplugin.errors import (
    AllocationError,
    HeldDeviceError,
    RequestError,
    SharingError,
    StrictRefusalError,
    UnhealthyDeviceError,
    UnknownDeviceError,
)
from deviceplugin.injection.answer import ContainerAnswer
from deviceplugin.metrics import Metrics, Rpc
from deviceplugin.serving.listing import Listing
from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc

_STATUS: dict[type[AllocationError], grpc.StatusCode] = {
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownDeviceError: grpc.StatusCode.NOT_FOUND,
    UnhealthyDeviceError: grpc.StatusCode.UNAVAILABLE,
    HeldDeviceError: grpc.StatusCode.FAILED_PRECONDITION,
    SharingError: grpc.StatusCode.INVALID_ARGUMENT,
    StrictRefusalError: grpc.StatusCode.FAILED_PRECONDITION,
}

_log = structlog.get_logger("deviceplugin.servicer")


class Servicer(api_pb2_grpc.DevicePluginServicer):
    """What kubelet calls. `on_answered` is called after each answer about devices."""

    def __init__(
        self,
        desk: Desk,
        listing: Listing,
        metrics: Metrics,
        on_answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._desk = desk
        self._listing = listing
        self._on_answered = on_answered
        self._preferred_seconds = metrics.rpc_seconds.labels(str(Rpc.PREFERRED))
        self._allocate_seconds = metrics.rpc_seconds.labels(str(Rpc.ALLOCATE))

    def GetDevicePluginOptions(  # noqa: N802 -- kubelet's name
        self,
        request: api_pb2.Empty,  # noqa: ARG002 -- gRPC hands it over
        context: grpc.ServicerContext,  # noqa: ARG002 -- as above
    ) -> api_pb2.DevicePluginOptions:
        """Say that a preference may be asked; PreStartContainer is not needed."""
        return api_pb2.DevicePluginOptions(get_preferred_allocation_available=True)

    def ListAndWatch(  # noqa: N802 -- kubelet's name
        self,
        request: api_pb2.Empty,  # noqa: ARG002 -- gRPC hands it over
        context: grpc.ServicerContext,
    ) -> Iterator[api_pb2.ListAndWatchResponse]:
        """Send the whole device list now and after each change, until kubelet goes away."""
        stream = self._listing.open()
        # The generator sleeps between changes: only the callback sees kubelet go.
        if not context.add_callback(lambda: self._listing.end(stream)):
            self._listing.end(stream)
        return iter(stream)

    def GetPreferredAllocation(  # noqa: N802 -- kubelet's name
        self, request: api_pb2.PreferredAllocationRequest, context: grpc.ServicerContext
    ) -> api_pb2.PreferredAllocationResponse:
        """Say which devices each container should get."""
        with self._preferred_seconds.time():
            later = _after(context)
            later(self._on_answered)
            try:
                plans = self._desk.prefer(
                    [
                        Request(
                            tuple(container.available_deviceIDs),
                            tuple(container.must_include_deviceIDs),
                            container.allocation_size,
                        )
                        for container in request.container_requests
                    ],
                    later,
                )
            except AllocationError as error:
                _refuse(context, error)
            return api_pb2.PreferredAllocationResponse(
                container_responses=[
                    api_pb2.ContainerPreferredAllocationResponse(deviceIDs=plan.uuids)
                    for plan in plans
                ]
            )

    def Allocate(  # noqa: N802 -- kubelet's name
        self, request: api_pb2.AllocateRequest, context: grpc.ServicerContext
    ) -> api_pb2.AllocateResponse:
        """Say what each container needs to see its devices."""
        begun = time.perf_counter()
        asked = [tuple(container.devices_ids) for container in request.container_requests]
        try:
            answers = self._desk.allocate(asked)
        except AllocationError as error:
            _refuse(context, error)
        finally:
            self._allocate_seconds.observe(time.perf_counter() - begun)
        later = _after(context)
        later(self._on_answered)
        later(partial(_log.info, "allocated", devices=asked))
        return api_pb2.AllocateResponse(container_responses=[_translate(one) for one in answers])

    def PreStartContainer(  # noqa: N802 -- kubelet's name
        self,
        request: api_pb2.PreStartContainerRequest,  # noqa: ARG002 -- gRPC hands it over
        context: grpc.ServicerContext,  # noqa: ARG002 -- as above
    ) -> api_pb2.PreStartContainerResponse:
        """Do nothing: kubelet is not told to call, so that restarts never depend on us."""
        return api_pb2.PreStartContainerResponse()


def _translate(one: ContainerAnswer) -> api_pb2.ContainerAllocateResponse:
    return api_pb2.ContainerAllocateResponse(
        envs=one.envs,
        mounts=[
            api_pb2.Mount(
                container_path=mount.container_path,
                host_path=mount.host_path,
                read_only=mount.read_only,
            )
            for mount in one.mounts
        ],
        devices=[
            api_pb2.DeviceSpec(
                container_path=node.container_path, host_path=node.host_path, permissions="rw"
            )
            for node in one.devices
        ],
        annotations=one.annotations,
        cdi_devices=[api_pb2.CDIDevice(name=name) for name in one.cdi_devices],
    )


def _after(context: grpc.ServicerContext) -> Later:
    """Return what runs work when the call is over."""

    def later(work: Callable[[], None]) -> None:
        if not context.add_callback(work):
            work()

    return later


def _refuse(context: grpc.ServicerContext, error: AllocationError) -> NoReturn:
    context.abort(_STATUS.get(type(error), grpc.StatusCode.UNKNOWN), str(error))
    raise AssertionError("abort returns never")
