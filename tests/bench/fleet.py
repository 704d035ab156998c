"""A cluster's worth of Nodes and pods on a real API server, written as fast as it takes them.

Nodes are objects alone: no kubelet, no heartbeat, no controller. The API server, kube-scheduler and
the extender are then all that works, as in the measurements that this one is compared with.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self

import aiohttp
import msgspec

from cli.discovered import discover_machine
from tests.e2e.control_plane import ADMIN, ControlPlane
from topology.catalogue import load_machine
from topology.model import NodeTopology
from topology.wire import STATE_KEY, TOPOLOGY_KEY, NodeState, encode_state, encode_topology

RESOURCE: Final = "nvidia.com/gpu"
NAMESPACE: Final = "default"
MACHINE: Final = "dgx1-v100"
GPUS: Final = 8
_AT_ONCE: Final = 64
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Fleet:
    """An administrator's connection to the API server of `plane`; `async with` opens it."""

    def __init__(self, plane: ControlPlane) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._url = plane.url
        self._connect: Callable[[], aiohttp.ClientSession] = lambda: aiohttp.ClientSession(
            self._url,
            headers={"Authorization": f"Bearer {ADMIN}"},
            connector=aiohttp.TCPConnector(limit=_AT_ONCE, ssl=context),
            # A Node of a watch may be longer than the 64 KiB that one line has by default.
            read_bufsize=1 << 20,
            timeout=aiohttp.ClientTimeout(total=None, connect=30),
        )

    async def __aenter__(self) -> Self:
        """Connect."""
        self._session = self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the connections."""
        await self._session.close()

    async def add_nodes(self, names: Sequence[str]) -> None:
        """Create nodes with eight GPUs each, annotated as their plugins would."""
        topology = discover_machine(load_machine(MACHINE))
        await self._each(
            names, lambda name: self._call("POST", "/api/v1/nodes", node(name, topology))
        )

    async def add_pods(
        self,
        names: Sequence[str],
        gpus: int,
        scheduler: str,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Create pods that ask for `gpus` GPUs each, with these annotations."""
        await self._each(
            names, lambda name: self._call("POST", _PODS, pod(name, gpus, scheduler, notes))
        )

    async def clear_pods(self, names: Sequence[str]) -> None:
        """Delete pods at once: there is no kubelet that would wait for them."""
        await self._each(
            names, lambda name: self._call("DELETE", f"{_PODS}/{name}", {"gracePeriodSeconds": 0})
        )

    async def annotate_pod(self, name: str, value: str) -> None:
        """Change a pod in a way that nobody cares for."""
        body = {"metadata": {"annotations": {"bench.example/tick": value}}}
        await self._call("PATCH", f"{_PODS}/{name}", body, "application/merge-patch+json")

    async def watch_unschedulable(self, name: str, seconds: float) -> float:
        """Return when a pod was seen refused (monotonic). Raises TimeoutError."""
        one = f"{_PODS}?fieldSelector=metadata.name={name}"
        async with asyncio.timeout(seconds):
            while True:
                listed = msgspec.convert(await self._call("GET", one, None), _List)
                if any(_is_refused(each) for each in listed.items):
                    return time.monotonic()
                version = listed.metadata.resource_version
                path = f"{one}&watch=true&resourceVersion={version}"
                async with self._session.get(path) as answer:
                    async for line in answer.content:
                        event = _EVENT.decode(line)
                        if event.type == "ERROR":
                            # Gone, or not known yet by this server: list again.
                            break
                        if _is_refused(msgspec.json.decode(event.object, type=_Object)):
                            return time.monotonic()

    async def watch_bound(self, count: int, seconds: float) -> list[float]:
        """Return when each pod was seen bound (monotonic), until `count` are or time is up.

        A watch that ends is begun anew from a list, so that none is missed.
        """
        seen: dict[str, float] = {}
        deadline = time.monotonic() + seconds
        while len(seen) < count and time.monotonic() < deadline:
            listed = await self._call("GET", f"{_PODS}?resourceVersion=0", None)
            now = time.monotonic()
            for each in listed["items"]:
                if each["spec"].get("nodeName"):
                    seen.setdefault(each["metadata"]["name"], now)
            if len(seen) < count:
                # Else no event might ever come: the watch would last until the deadline.
                version = listed["metadata"]["resourceVersion"]
                await self._watch(version, seen, count, deadline)
        return sorted(seen.values())

    async def _watch(
        self, version: str, seen: dict[str, float], count: int, deadline: float
    ) -> None:
        path = f"{_PODS}?watch=true&resourceVersion={version}"
        try:
            async with (
                asyncio.timeout(max(0.1, deadline - time.monotonic())),
                self._session.get(path) as answer,
            ):
                async for line in answer.content:
                    event = _EVENT.decode(line)
                    if event.type == "ERROR":
                        return
                    seen_pod = msgspec.json.decode(event.object, type=_Object)
                    if seen_pod.spec.node_name:
                        seen.setdefault(seen_pod.metadata.name, time.monotonic())
                    if len(seen) >= count:
                        return
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return

    async def _each(self, names: Iterable[str], do: Callable[[str], Any]) -> None:
        queue = list(reversed(list(names)))

        async def work() -> None:
            while queue:
                await do(queue.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())

    async def _call(self, method: str, path: str, body: Any, kind: str = "application/json") -> Any:
        data = None if body is None else msgspec.json.encode(body)
        async with self._session.request(
            method, path, data=data, headers={"Content-Type": kind}
        ) as answer:
            content = await answer.read()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return msgspec.json.decode(content)


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Condition(msgspec.Struct):
    reason: str = ""


class _Status(msgspec.Struct):
    conditions: tuple[_Condition, ...] = ()


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _List(msgspec.Struct):
    metadata: _Meta
    items: tuple[_Object, ...] = ()


class _Event(msgspec.Struct):
    """What a watch says; the object of an ERROR is no pod but a Status."""

    type: str
    object: msgspec.Raw


_EVENT: Final = msgspec.json.Decoder(_Event)


def _is_refused(pod: _Object) -> bool:
    return any(condition.reason == "Unschedulable" for condition in pod.status.conditions)


def node(name: str, topology: NodeTopology) -> dict[str, Any]:
    """Return a ready Node with this topology, its GPUs named after it."""
    own = msgspec.structs.replace(
        topology,
        gpus=tuple(
            msgspec.structs.replace(gpu, uuid=f"GPU-{name}-{gpu.index}") for gpu in topology.gpus
        ),
    )
    amounts = {"cpu": "96", "memory": "768Gi", "pods": "110", RESOURCE: str(GPUS)}
    return {
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {
                TOPOLOGY_KEY: encode_topology(own),
                STATE_KEY: encode_state(NodeState(generation=1)),
            },
        },
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(
    name: str, gpus: int, scheduler: str, notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a pod of one container."""
    wanted = {"cpu": "100m", RESOURCE: str(gpus)}
    return {
        "metadata": {"name": name, "annotations": dict(notes or {})},
        "spec": {
            "schedulerName": scheduler,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": "bench.example/none:1",
                    "resources": {"requests": wanted, "limits": {RESOURCE: str(gpus)}},
                }
            ],
        },
    }
