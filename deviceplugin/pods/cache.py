"""The pods of the own node: what the watch knows, and one GET for what it does not know yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from runtime.depth import decode_shallow
from runtime.errors import KubeError, NotFoundError, UnreachableError
from runtime.objects import UNREADABLE, Pod

PODS_PATH = "/api/v1/pods"

_POD: Final = msgspec.json.Decoder(Pod)


def own_node_query(node_name: str) -> dict[str, str]:
    """Return the list query for the pods bound to a node."""
    return {"fieldSelector": f"spec.nodeName={node_name}"}


class PodCache:
    """What the watch knows, by ``namespace/name``; a reflector's sink.

    Readers get an unchanging mapping. `on_change` is called in the reflector's thread after each
    delivery, `on_end` too when a pod ended or vanished; both must not block.
    """

    def __init__(
        self,
        on_change: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._pods: Mapping[str, Pod] = MappingProxyType({})
        self._on_change = on_change
        self._on_end = on_end

    def read(self) -> Mapping[str, Pod]:
        """Return all pods as they are now."""
        return self._pods

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Take these pods as all there are."""
        before = self._pods
        self._put({pod.key: pod for pod in objects})
        if any(key not in self._pods or self._ended(pod) for key, pod in before.items()):
            self._on_end()

    def changed(self, obj: Pod) -> None:
        """Take a new or changed pod."""
        before = self._pods.get(obj.key)
        # A node has a hundred pods: a copy costs less than a lock in every reader.
        self._put({**self._pods, obj.key: obj})
        if before is not None and self._ended(before):
            self._on_end()

    def deleted(self, obj: Pod) -> None:
        """Drop a pod, unless a namesake has taken its place already."""
        now = self._pods.get(obj.key)
        if now is not None and now.metadata.uid == obj.metadata.uid:
            self._put({key: pod for key, pod in self._pods.items() if key != obj.key})
        self._on_end()

    def _ended(self, before: Pod) -> bool:
        now = self._pods[before.key]
        replaced = now.metadata.uid != before.metadata.uid
        return replaced or (now.finished and not before.finished)

    def _put(self, pods: dict[str, Pod]) -> None:
        self._pods = MappingProxyType(pods)
        self._on_change()


class PodReader(Protocol):
    """One GET against the API server."""

    def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float) -> bytes:
        """Return the body; raises KubeError."""


class PodGetter:
    """Gets single pods with a hard deadline.

    A connection into a black hole may outlive any timeout of its parts, so the call runs on a
    thread of its own and is left alone when the time is up. While it hangs no other is tried.
    """

    def __init__(self, client: PodReader) -> None:
        self._client = client
        self._busy = threading.Lock()

    def get(self, key: str, timeout: float) -> Pod | None:
        """Return the pod, None if there is none of that name.

        Raises KubeError when the API server does not say within `timeout` seconds.
        """
        if not self._busy.acquire(blocking=False):
            raise UnreachableError("the call before has not come back yet")
        answer: Future[Pod | None] = Future()
        threading.Thread(
            target=self._run, args=(key, timeout, answer), name="pod-getter", daemon=True
        ).start()
        try:
            return answer.result(timeout)
        except FutureTimeout:
            raise UnreachableError(f"no answer within {timeout:.1f} s") from None

    def _run(self, key: str, timeout: float, answer: Future[Pod | None]) -> None:
        try:
            answer.set_result(self._fetch(key, timeout))
        except BaseException as error:  # noqa: BLE001 -- it is raised where the answer is awaited
            answer.set_exception(error)
        finally:
            self._busy.release()

    def _fetch(self, key: str, timeout: float) -> Pod | None:
        namespace, _, name = key.partition("/")
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}"
        try:
            return decode_shallow(_POD.decode, self._client.get(path, timeout=timeout))
        except NotFoundError:
            return None
        except UNREADABLE as error:
            raise KubeError(f"pod {key} does not read: {error}") from error
