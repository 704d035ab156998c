"""Telling the API server: the node, its numbers, and how each pod stands.

One thread writes. It sends what is true when it sends, so what happened while the API server was
away is told once, in its last state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from embedded.kubelet.bodies import HOSTNAME_LABEL, Body, node_body
from embedded.kubelet.journal import Journal
from embedded.kubelet.mirrors import Create, Delete
from runtime.errors import ApiError, ConflictError, KubeError, NotFoundError
from runtime.objects import Node, Pod

FIRST_PAUSE: Final = 0.2
LAST_PAUSE: Final = 2.0
"""Seconds between tries while the API server does not answer: from the first to the last."""


class NodeApi(Protocol):
    """What kubelet needs of the API server to write to it: `runtime.kube.KubeClient` has it.

    Raises errors of `runtime.errors`.
    """

    def post(self, path: str, body: object, /) -> bytes:
        """Create."""

    def patch(self, path: str, body: object, /) -> bytes:
        """Merge-patch."""

    def delete(self, path: str, body: object, /) -> bytes:
        """Delete with options."""


class StatusWriter:
    """Writes to the API server whenever it is told that something changed.

    `node_status` and `pod_status` make the bodies; the latter returns None for a pod that is not
    known any more. `mirror_due` says what to do about a mirror pod. `published` holds what the API
    server last took.
    """

    def __init__(
        self,
        client: NodeApi | None,
        name: str,
        labels: dict[str, str],
        *,
        node_status: Callable[[], Body],
        pod_status: Callable[[str], tuple[Pod, Body] | None],
        mirror_due: Callable[[str], Create | Delete | None],
        journal: Journal,
        sync_period: float,
    ) -> None:
        self._client = client
        self._name = name
        self._labels = labels
        self._node_status = node_status
        self._pod_status = pod_status
        self._mirror_due = mirror_due
        self._journal = journal
        self._sync_period = sync_period
        self._wake = threading.Condition()
        self._node_due = True
        self._pods_due: dict[str, None] = {}
        self._removals: dict[str, Pod] = {}
        self._mirrors_due: dict[str, None] = {}
        self._node_uid = ""
        self._registered = False
        self._sent_node: Body = {}
        self._sent_pods: dict[str, tuple[str, Body]] = {}
        self._away = False
        self._stopped = threading.Event()

    @property
    def published(self) -> Body:
        """The node status that the API server has; {} before the first one."""
        return self._sent_node

    def node_changed(self) -> None:
        """Look at the node's numbers again."""
        with self._wake:
            self._node_due = True
            self._wake.notify()

    def pod_changed(self, uid: str) -> None:
        """Look at a pod's status again."""
        with self._wake:
            self._pods_due[uid] = None
            self._wake.notify()

    def mirror_changed(self, key: str) -> None:
        """Look again at what a mirror pod needs."""
        with self._wake:
            self._mirrors_due[key] = None
            self._wake.notify()

    def remove(self, pod: Pod) -> None:
        """Ask the API server to delete a pod that has terminated."""
        with self._wake:
            self._removals[pod.metadata.uid] = pod
            self._wake.notify()

    def run(self) -> None:
        """Write until `stop` is called."""
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            with self._wake:
                if self._away:
                    self._wake.wait_for(self._stopped.is_set, pause)
                else:
                    self._wake.wait_for(self._anything, self._sync_period)
            if self._stopped.is_set():
                return
            try:
                self._write()
            except KubeError as error:
                if not self._away:
                    self._journal.note("trouble", self._name, f"API server: {error}")
                pause = min(LAST_PAUSE, pause * 2) if self._away else FIRST_PAUSE
                self._away = True
            else:
                self._away = False

    def stop(self) -> None:
        """Let `run` return after the request that it is at."""
        with self._wake:
            self._stopped.set()
            self._wake.notify()

    def _anything(self) -> bool:
        return bool(
            self._stopped.is_set()
            or self._node_due
            or self._pods_due
            or self._mirrors_due
            or self._removals
        )

    def _write(self) -> None:
        """Send what is due; what could not be sent stays due. Raises KubeError."""
        with self._wake:
            self._node_due = False
        try:
            self._write_node()
        except KubeError:
            self._node_due = True
            raise
        for key in tuple(self._mirrors_due):
            with self._wake:
                self._mirrors_due.pop(key, None)
            try:
                self._write_mirror(key)
            except KubeError:
                self.mirror_changed(key)
                raise
        for uid in tuple(self._pods_due):
            with self._wake:
                self._pods_due.pop(uid, None)
            try:
                self._write_pod(uid)
            except KubeError:
                with self._wake:
                    self._pods_due[uid] = None
                raise
        for uid, pod in tuple(self._removals.items()):
            self._delete(pod)
            with self._wake:
                self._removals.pop(uid, None)

    def _write_node(self) -> None:
        status = self._node_status()
        if self._registered and status == self._sent_node:
            return
        if self._client is not None:
            if not self._registered:
                self._register(self._client, status)
            try:
                self._client.patch(f"/api/v1/nodes/{self._name}/status", {"status": status})
            except NotFoundError:
                self._registered = False  # somebody deleted the node: make it again
                raise
        self._registered = True
        self._sent_node = status

    def _register(self, client: NodeApi, status: Body) -> None:
        try:
            made = client.post("/api/v1/nodes", node_body(self._name, self._labels, status))
        except ConflictError:
            labels = {**self._labels, HOSTNAME_LABEL: self._name}
            made = client.patch(f"/api/v1/nodes/{self._name}", {"metadata": {"labels": labels}})
        self._node_uid = msgspec.json.decode(made, type=Node).metadata.uid

    def _write_pod(self, uid: str) -> None:
        found = self._pod_status(uid)
        if found is None:
            self._sent_pods.pop(uid, None)
            return
        pod, status = found
        if self._client is None or self._sent_pods.get(uid) == (pod.metadata.uid, status):
            return
        # The UID makes the API server refuse the patch if another pod has the name by now.
        body = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        if self._tell(lambda client: client.patch(f"{pod_path(pod)}/status", body)):
            self._sent_pods[uid] = (pod.metadata.uid, status)

    def _write_mirror(self, key: str) -> None:
        due = self._mirror_due(key)
        if isinstance(due, Delete):
            self._delete(due.pod)
        elif isinstance(due, Create):
            meta = due.body["metadata"]
            owner = {
                "apiVersion": "v1",
                "kind": "Node",
                "name": self._name,
                "uid": self._node_uid,
                "controller": True,
            }
            body = {**due.body, "metadata": {**meta, "ownerReferences": [owner]}}
            path = f"/api/v1/namespaces/{meta['namespace']}/pods"
            self._tell(lambda client: client.post(path, body))

    def _delete(self, pod: Pod) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.metadata.uid},
        }
        self._tell(lambda client: client.delete(pod_path(pod), options))

    def _tell(self, write: Callable[[NodeApi], object]) -> bool:
        """Write about a pod; False if the API server does not want it, now or ever."""
        if self._client is None:
            return False
        try:
            write(self._client)
        except (NotFoundError, ConflictError):
            return False  # the pod is gone, which the watch will tell
        except ApiError as error:
            if error.status >= 500 or error.status == 429:
                raise
            self._journal.note("trouble", self._name, f"API server: {error}")
            return False
        return True


def pod_path(pod: Pod) -> str:
    """Return a pod's path at the API server."""
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
