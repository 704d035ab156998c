"""Static pods: the ones that a node runs because a file says so, whatever the API server says.

kubelet gives each a name that ends with its node's, and a UID made of the file's content: another
content is another pod.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from embedded.kubelet.bodies import Body, rfc3339
from embedded.kubelet.errors import KubeletError
from runtime.objects import Pod

HASH_KEY: Final = "kubernetes.io/config.hash"
SEEN_KEY: Final = "kubernetes.io/config.seen"
SOURCE_KEY: Final = "kubernetes.io/config.source"
"""On a static pod: its UID, when its file was read, and where from (``file``)."""

# kubelet adds it, so that trouble with the node does not evict what the node is told to run.
_STAYS: Final[Body] = {"operator": "Exists", "effect": "NoExecute"}


class StaticPod(msgspec.Struct, frozen=True):
    """A static pod: `body` is all of it as the API has pods, `pod` what kubelet looks at."""

    pod: Pod
    body: dict[str, Any]


def parse_static_pod(content: bytes, origin: str, node: str, now: float) -> StaticPod:
    """Read a file's content (YAML or JSON), found at `origin`; `now` in seconds of the epoch.

    Raises KubeletError naming the origin for anything but a pod with a name and containers.
    """
    try:
        body = msgspec.yaml.decode(content, type=dict[str, Any])
        meta, spec = body["metadata"], body["spec"]
        name = meta["name"]
        if body.get("kind") != "Pod" or not name or not spec["containers"]:
            raise KubeletError(f"{origin}: no pod with a name and containers")
        mark = f"\0{node}\0{origin}".encode()
        uid = hashlib.blake2b(content + mark, digest_size=16).hexdigest()
        told = {HASH_KEY: uid, SEEN_KEY: rfc3339(now), SOURCE_KEY: "file"}
        whole = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **meta,
                "name": f"{name}-{node.lower()}",
                "namespace": meta.get("namespace") or "default",
                "uid": uid,
                "annotations": {**(meta.get("annotations") or {}), **told},
            },
            "spec": {
                **spec,
                "nodeName": node,
                "tolerations": [*(spec.get("tolerations") or ()), _STAYS],
            },
        }
        return StaticPod(msgspec.convert(whole, Pod), whole)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise KubeletError(f"{origin}: no pod: {error!r}") from error


class StaticPodFolder:
    """Looks at a folder of pod files every `period` seconds, but for names with a dot in front.

    `listed` is called with all pods when they have changed, `trouble` with a file's path and what
    is wrong with it, once for each content. A file that does not read is as if it were not there.
    """

    def __init__(
        self,
        folder: Path,
        node: str,
        period: float,
        *,
        listed: Callable[[tuple[StaticPod, ...]], None],
        trouble: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._node = node
        self._period = period
        self._listed = listed
        self._trouble = trouble
        self._contents: dict[Path, bytes] | None = None
        self._pods: dict[Path, StaticPod] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look until `stop` is called."""
        while not self._stopping.wait(self._period):
            self.look()

    def stop(self) -> None:
        """Make `run` return soon, from any thread."""
        self._stopping.set()

    def look(self) -> None:
        """Look once; the first time the pods are told whatever they are."""
        found = self._read()
        if found == self._contents:
            return
        before = self._contents or {}
        pods: dict[Path, StaticPod] = {}
        for path, content in found.items():
            if before.get(path) == content:
                if path in self._pods:
                    pods[path] = self._pods[path]
                continue
            try:
                pods[path] = parse_static_pod(content, str(path), self._node, time.time())
            except KubeletError as error:
                self._trouble(path.name, str(error))
        self._contents, self._pods = found, pods
        self._listed(tuple(pods.values()))

    def _read(self) -> dict[Path, bytes]:
        found: dict[Path, bytes] = {}
        try:
            for path in sorted(self._folder.glob("[!.]*")):
                if path.is_file():
                    found[path] = path.read_bytes()
        except OSError:
            # A file that went away between two looks: the next one has the whole.
            return self._contents or {}
        return found
