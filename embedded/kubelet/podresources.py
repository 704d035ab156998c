"""The PodResources v1 service: which pod holds which devices, as node agents ask it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc

from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.devices import Device
from embedded.kubelet.pods import PodTable
from embedded.kubelet.requests import init_containers, sidecar
from runtime.objects import Container, Pod

RATE: Final = 100.0
"""Requests a second that kubelet answers on this socket."""

BURST: Final = 10
"""Requests that it answers at once before it counts."""


class TokenBucket:
    """A rate limit that refuses instead of waiting. Safe to share between threads."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._last = clock()

    def take(self) -> bool:
        """Take a token if there is one."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
            self._last = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class RateLimit(grpc.ServerInterceptor):
    """Refuses calls beyond the rate with RESOURCE_EXHAUSTED."""

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through or answer it."""
        if self._bucket.take():
            return continuation(handler_call_details)

        def refuse(request: object, context: grpc.ServicerContext) -> None:
            del request
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")

        return grpc.unary_unary_rpc_method_handler(refuse)


class PodResources(api_pb2_grpc.PodResourcesListerServicer):
    """Answers from the pod table and the device manager."""

    def __init__(self, pods: PodTable, devices: DeviceManager) -> None:
        self._pods = pods
        self._devices = devices

    def List(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.ListPodResourcesRequest, context: grpc.ServicerContext
    ) -> api_pb2.ListPodResourcesResponse:
        """Tell every active pod's devices; frees those of pods that have ended."""
        del request, context
        records = [record for record in self._pods.records() if record.active]
        self._devices.free_ended()
        return api_pb2.ListPodResourcesResponse(
            pod_resources=[self._describe(record.pod) for record in records]
        )

    def GetAllocatableResources(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.AllocatableResourcesRequest, context: grpc.ServicerContext
    ) -> api_pb2.AllocatableResourcesResponse:
        """Tell the healthy devices, used or not."""
        del request, context
        return api_pb2.AllocatableResourcesResponse(
            devices=[
                entry
                for resource, devices in self._devices.allocatable_devices().items()
                for entry in describe_devices(resource, devices)
            ]
        )

    def Get(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.GetPodResourcesRequest, context: grpc.ServicerContext
    ) -> api_pb2.GetPodResourcesResponse:
        """Tell one active pod's devices."""
        record = self._pods.find(request.pod_namespace, request.pod_name)
        if record is None or not record.active:
            context.abort(
                grpc.StatusCode.UNKNOWN,
                f"pod {request.pod_name} in namespace {request.pod_namespace} not found",
            )
        return api_pb2.GetPodResourcesResponse(pod_resources=self._describe(record.pod))

    def _describe(self, pod: Pod) -> api_pb2.PodResources:
        shown: list[Container] = [each for each in init_containers(pod) if sidecar(each)]
        return api_pb2.PodResources(
            name=pod.metadata.name,
            namespace=pod.metadata.namespace,
            containers=[
                api_pb2.ContainerResources(
                    name=container.name,
                    devices=[
                        entry
                        for grant in self._devices.held_by(pod.metadata.uid, container.name)
                        for entry in describe_devices(grant.resource, grant.devices)
                    ],
                )
                for container in (*shown, *pod.spec.containers)
            ],
        )


def describe_devices(
    resource: str, devices: Iterable[Device]
) -> Iterable[api_pb2.ContainerDevices]:
    """Make an entry for each device, one for each of its NUMA nodes if it is on several."""
    for device in devices:
        for node in device.numa or (None,):
            yield api_pb2.ContainerDevices(
                resource_name=resource,
                device_ids=[device.id],
                topology=None
                if node is None
                else api_pb2.TopologyInfo(nodes=[api_pb2.NUMANode(ID=node)]),
            )
