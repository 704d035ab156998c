"""What kubelet says each pod holds: the answer of PodResources List."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

import grpc
import msgspec

from deviceplugin.errors import PodResourcesError
from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc

# kubelet re-creates its socket when it restarts; the default back-off of gRPC (1 s doubling to
# 120 s) would keep us away from it for long.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)

RATE_PAUSE: Final = 0.02
"""Seconds; kubelet allows 100 calls a second, and 10 at once."""


class PodHoldings(msgspec.Struct, frozen=True):
    """The GPUs of one pod's containers, in kubelet's order; empty where a container has none."""

    key: str
    containers: dict[str, tuple[str, ...]]

    def uuids(self) -> tuple[str, ...]:
        """Return all GPUs of the pod, each once."""
        return tuple(dict.fromkeys(uuid for held in self.containers.values() for uuid in held))


class Holdings(msgspec.Struct, frozen=True):
    """All pods that kubelet has admitted or is admitting, by ``namespace/name``."""

    pods: dict[str, PodHoldings] = {}

    def holders(self) -> Mapping[str, str]:
        """Map each GPU that is with a pod to that pod's key."""
        return {uuid: pod.key for pod in self.pods.values() for uuid in pod.uuids()}


class Reading(msgspec.Struct, frozen=True):
    """One answer of kubelet: pod (``namespace/name``) to container to resource to device ids."""

    pods: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}

    def of(self, resource: str) -> Holdings:
        """Reduce it to one resource; pods and containers without it stay, empty."""
        return self._reduce(lambda devices: devices.get(resource, ()))

    def everything(self) -> Holdings:
        """Return the devices of all resources, other plugins' too."""
        return self._reduce(lambda devices: tuple(one for ids in devices.values() for one in ids))

    def _reduce(self, pick: Callable[[dict[str, tuple[str, ...]]], tuple[str, ...]]) -> Holdings:
        return Holdings(
            {
                key: PodHoldings(key, {name: pick(one) for name, one in containers.items()})
                for key, containers in self.pods.items()
            }
        )


def read_answer(pods: Iterable[api_pb2.PodResources]) -> Reading:
    """Translate kubelet's answer.

    A resource may have several entries in a container, one for each NUMA node.
    """
    reading: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
    for pod in pods:
        containers = reading.setdefault(f"{pod.namespace}/{pod.name}", {})
        for container in pod.containers:
            held = containers.setdefault(container.name, {})
            for devices in container.devices:
                before = held.get(devices.resource_name, ())
                held[devices.resource_name] = (*before, *devices.device_ids)
    return Reading(reading)


class PodResources:
    """kubelet's PodResources service on a unix socket.

    `list` has a side effect inside kubelets before 1.38: while an Allocate is in flight it may
    make kubelet forget that allocation. Only `admission.ledger.Ledger` calls it, which knows,
    and one call at a time.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._connect()

    def list(self, timeout: float) -> Reading:
        """Ask kubelet; raises PodResourcesError after `timeout` seconds or when it refuses."""
        end = time.monotonic() + timeout
        renewed = False
        while True:
            left = end - time.monotonic()
            try:
                return self._ask(max(0.0, left))
            except grpc.RpcError as error:
                code = _code(error)
                if code is grpc.StatusCode.UNAVAILABLE and not renewed:
                    # After a failure to connect gRPC rests, and refuses every call meanwhile,
                    # though kubelet may be back. A channel of its own connects at once.
                    self._channel.close()
                    self._connect()
                    renewed = True
                elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and left > RATE_PAUSE:
                    # All agents of the node share the rate; what is missing comes back at once.
                    time.sleep(RATE_PAUSE)
                else:
                    raise PodResourcesError(_said(error)) from error

    def allocatable(self, timeout: float) -> dict[str, frozenset[str]]:
        """Ask which devices kubelet would give out, by resource; raises PodResourcesError.

        Healthy ones, in use or not. It has no side effect.
        """
        try:
            answer = self._stub.GetAllocatableResources(
                api_pb2.AllocatableResourcesRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            raise PodResourcesError(_said(error)) from error
        found: dict[str, frozenset[str]] = {}
        for devices in answer.devices:
            before = found.get(devices.resource_name, frozenset())
            found[devices.resource_name] = before | frozenset(devices.device_ids)
        return found

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def _connect(self) -> None:
        self._channel = grpc.insecure_channel(f"unix:{self._socket}", options=CHANNEL_OPTIONS)
        self._stub = api_pb2_grpc.PodResourcesListerStub(self._channel)

    def _ask(self, timeout: float) -> Reading:
        answer = self._stub.List(api_pb2.ListPodResourcesRequest(), timeout=timeout)
        return read_answer(answer.pod_resources)


# Every error that a stub raises is a Call too; the library's types do not say so.
def _code(error: grpc.RpcError) -> grpc.StatusCode:
    return cast("grpc.Call", error).code()


def _said(error: grpc.RpcError) -> str:
    return f"{_code(error).name}: {cast('grpc.Call', error).details()}"
