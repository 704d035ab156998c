"""A node under test: its kubelet, an API server that is a dict, and what can be seen from outside.

Only what a real node shows as well is looked at: node.status, pod status, PodResources, the
containers' environment, and the files in the device plugins' directory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import msgspec

from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from embedded.kubelet import ContainerView, Kubelet
from embedded.kubelet.admission import SyncLoop
from runtime.errors import ConflictError, NotFoundError, UnreachableError
from runtime.objects import Container, ObjectMeta, Pod, PodSpec, PodStatus, Resources
from tests.embedded.kubelet.plugin import GPU
from tests.waiting import wait_until

_number = count(1)


def container(name: str = "main", gpus: int | str | None = 1, **more: Any) -> Container:
    """Make a container with a GPU limit; None for none."""
    limits = {} if gpus is None else {GPU: gpus}
    resources = Resources(limits={**limits, **more.pop("limits", {})})
    return Container(name=name, resources=resources, **more)


def pod(
    name: str,
    gpus: int | str | None = 1,
    *,
    containers: Iterable[Container] | None = None,
    init: Iterable[Container] = (),
    created: str = "2026-01-01T00:00:00Z",
    run_seconds: str | None = None,
    phase: str = "Pending",
) -> Pod:
    """Make a pod that is bound to the node."""
    annotations = {"embedded.gputopo.dev/run-seconds": run_seconds} if run_seconds else None
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}-{next(_number)}",
            creation_timestamp=created,
            annotations=annotations,
        ),
        spec=PodSpec(
            containers=tuple(containers or (container(gpus=gpus),)),
            init_containers=tuple(init) or None,
            node_name="n1",
        ),
        status=PodStatus(phase=phase),
    )


class DictApi:
    """The writing half of an API server: objects by path, merge patches, and a way to be away."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.away = False
        self.tries = 0
        self.deleted: list[str] = []
        self._lock = threading.Lock()

    def post(self, path: str, body: object, /) -> bytes:
        """Create, or refuse because it exists."""
        assert isinstance(body, dict)
        with self._lock:
            self._reach()
            where = f"{path}/{body['metadata']['name']}"
            if where in self.objects:
                raise ConflictError(409, "AlreadyExists", where)
            self.objects[where] = body
        return b"{}"

    def patch(self, path: str, body: object, /) -> bytes:
        """Merge into an object or its status."""
        assert isinstance(body, dict)
        with self._lock:
            self._reach()
            known = self.objects.get(path.removesuffix("/status"))
            if known is None:
                raise NotFoundError(404, "NotFound", path)
            uid = body.get("metadata", {}).get("uid")
            if uid is not None and uid != known["metadata"]["uid"]:
                raise ConflictError(409, "Conflict", f"{path}: other uid")
            _merge(known, body)
        return b"{}"

    def delete(self, path: str, body: object, /) -> bytes:
        """Delete."""
        del body
        with self._lock:
            self._reach()
            self.objects.pop(path, None)
            self.deleted.append(path)
        return b"{}"

    def _reach(self) -> None:
        self.tries += 1
        if self.away:
            raise UnreachableError("refused")


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


class _Pods:
    """A source that tells a new kubelet process every pod that there is, in one list."""

    def __init__(self, node: Node, loop: SyncLoop) -> None:
        self._node = node
        self.loop = loop

    def run(self) -> None:
        """Tell the list."""
        self.loop.listed(tuple(self._node.pods.values()))
        self._node.loop = self.loop

    def stop(self) -> None:
        """Nothing waits."""
        self._node.loop = None


class Node:
    """A node with a kubelet, and its owner's view of it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.api = DictApi()
        self.pods: dict[str, Pod] = {}
        self.loop: SyncLoop | None = None
        self.kubelet = Kubelet(
            "n1", root, self.api, source=lambda loop: _Pods(self, loop), **settings
        )

    @property
    def directory(self) -> Path:
        """The device plugins' directory."""
        return self.kubelet.device_plugins_dir

    def start(self) -> Node:
        """Start the kubelet and wait until it takes pods."""
        self.kubelet.start()
        wait_until(lambda: self.loop, what="the kubelet takes pods")
        return self

    def restart(self) -> None:
        """Restart the kubelet process."""
        self.kubelet.restart()
        wait_until(lambda: self.loop, what="the kubelet takes pods")

    def bind(self, *pods: Pod, batch: bool = False) -> None:
        """Let pods appear on the node, one after another or all in one batch."""
        for each in pods:
            self.pods[each.metadata.uid] = each
            self.api.objects[_path(each)] = {
                "metadata": msgspec.to_builtins(each.metadata),
                "status": {"phase": each.status.phase},
            }
        if self.loop is None:
            return
        if batch:
            self.loop.listed(tuple(self.pods.values()))
            return
        for each in pods:
            self.loop.changed(each)

    def change(self, changed: Pod) -> None:
        """Let a pod's object change."""
        self.pods[changed.metadata.uid] = changed
        assert self.loop is not None
        self.loop.changed(changed)

    def remove(self, gone: Pod) -> None:
        """Delete a pod at once."""
        self.pods.pop(gone.metadata.uid)
        self.api.objects.pop(_path(gone), None)
        if self.loop is not None:
            self.loop.deleted(gone)

    def status(self, of: Pod) -> dict[str, Any]:
        """Return a pod's status as the API server has it."""
        found: dict[str, Any] = self.api.objects[_path(of)]["status"]
        return found

    def wait_phase(self, of: Pod, phase: str) -> dict[str, Any]:
        """Wait for a pod's phase and return its status."""
        wait_until(
            lambda: self.status(of).get("phase") == phase,
            what=f"{of.key} is {phase}, not {self.status(of)}",
        )
        return self.status(of)

    def run(self, *pods: Pod) -> None:
        """Bind pods and wait until they run."""
        self.bind(*pods)
        for each in pods:
            self.wait_phase(each, "Running")

    def numbers(self, resource: str = GPU) -> tuple[str | None, str | None]:
        """Return capacity and allocatable of a resource as node.status has them."""
        status = self.api.objects.get("/api/v1/nodes/n1", {}).get("status", {})
        return status.get("capacity", {}).get(resource), status.get("allocatable", {}).get(resource)

    def wait_numbers(
        self, capacity: int | None, allocatable: int | None, resource: str = GPU
    ) -> None:
        """Wait for node.status."""
        wanted = tuple(None if n is None else str(n) for n in (capacity, allocatable))
        wait_until(
            lambda: self.numbers(resource) == wanted,
            what=f"capacity and allocatable {wanted}",
        )

    def views(self, of: Pod, name: str = "main") -> list[ContainerView]:
        """Return every start of a pod's container."""
        return [
            view
            for view in self.kubelet.containers()
            if (view.uid, view.container) == (of.metadata.uid, name)
        ]

    def env(self, of: Pod, name: str = "main") -> dict[str, str]:
        """Return what a pod's container saw at its last start."""
        return self.views(of, name)[-1].env

    def devices(self, of: Pod, name: str = "main") -> list[str]:
        """Return the devices of a container at its last start."""
        return sorted(self.views(of, name)[-1].devices)

    def resources(self) -> api_pb2_grpc.PodResourcesListerStub:
        """Connect to PodResources. The connection lives as long as the stub."""
        channel = grpc.insecure_channel(
            f"unix:{self.kubelet.pod_resources_socket}",
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        return api_pb2_grpc.PodResourcesListerStub(channel)

    def listed(self) -> dict[str, dict[str, list[str]]]:
        """Return PodResources List: pod -> container -> GPU IDs."""
        answer = self.resources().List(api_pb2.ListPodResourcesRequest(), timeout=5)
        return {
            each.name: {
                c.name: sorted(i for d in c.devices if d.resource_name == GPU for i in d.device_ids)
                for c in each.containers
            }
            for each in answer.pod_resources
        }


def _path(of: Pod) -> str:
    return f"/api/v1/namespaces/{of.metadata.namespace}/pods/{of.metadata.name}"
