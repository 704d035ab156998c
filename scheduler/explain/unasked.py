"""Pods that have no node yet, as the API server tells them: also those nobody asked us about.

kube-scheduler refuses many a pod by its own filters, and then never asks. Such a pod is known by
its condition alone.
"""

from __future__ import annotations

import msgspec

from runtime.objects import Pod
from scheduler.errors import DemandError
from scheduler.explain.shapes import PodLine
from scheduler.kube.pods import read_request


class WaitingPod(msgspec.Struct, frozen=True):
    """A pod without a node. `since` is RFC 3339; `reason` is kube-scheduler's, "" if none yet."""

    uid: str
    namespace: str
    name: str
    gpus: int
    since: str
    reason: str


class WaitingPods:
    """The pods with GPUs that wait, told by a watch. `version` grows with each change of them."""

    def __init__(self, resource: str) -> None:
        self.version = 0
        self._resource = resource
        self._pods: dict[str, WaitingPod] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def listed(self, objects: tuple[Pod, ...], /) -> None:
        """Take all there is."""
        pods = (read_waiting(pod, self._resource) for pod in objects)
        self._pods = {pod.uid: pod for pod in pods if pod is not None}
        self.version += 1

    def changed(self, obj: Pod, /) -> None:
        """Take a new or changed pod."""
        uid = obj.metadata.uid
        pod = read_waiting(obj, self._resource)
        if pod == self._pods.get(uid):
            return
        if pod is None:
            del self._pods[uid]
        else:
            self._pods[uid] = pod
        self.version += 1

    def deleted(self, obj: Pod, /) -> None:
        """Take a pod's end."""
        if self._pods.pop(obj.metadata.uid, None) is not None:
            self.version += 1

    def find(self, namespace: str, name: str) -> WaitingPod | None:
        """Return the pod of this name, if it waits."""
        return next(
            (pod for pod in self._pods.values() if (pod.namespace, pod.name) == (namespace, name)),
            None,
        )

    def oldest_first(self) -> list[WaitingPod]:
        """Return them all, who waits longest first."""
        return sorted(self._pods.values(), key=lambda pod: (pod.since, pod.namespace, pod.name))


def read_waiting(pod: Pod, resource: str) -> WaitingPod | None:
    """Return a pod that waits; None if it has a node, has ended, or asks for no GPUs."""
    meta = pod.metadata
    if pod.spec.node_name or pod.finished or meta.deletion_timestamp is not None:
        return None
    try:
        request = read_request(pod, resource)
    except DemandError as error:
        return WaitingPod(
            meta.uid, meta.namespace, meta.name, 0, meta.creation_timestamp or "", str(error)
        )
    if request is None:
        return None
    reason = next(
        (
            one.message or one.reason or ""
            for one in pod.status.conditions or ()
            if one.type == "PodScheduled" and one.status == "False"
        ),
        "",
    )
    return WaitingPod(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        gpus=request.demand.count,
        since=meta.creation_timestamp or "",
        reason=reason,
    )


def show_waiting(pod: WaitingPod, known: PodLine | None) -> PodLine:
    """Return the line of a pod that waits; `known` is what we decided about it, if asked."""
    said = f"kube-scheduler: {pod.reason}" if pod.reason else "not tried yet"
    if known is None:
        return PodLine(
            namespace=pod.namespace,
            name=pod.name,
            uid=pod.uid,
            outcome="waiting",
            since=pod.since,
            updated=pod.since,
            attempts=0,
            gpus=pod.gpus,
            node=None,
            score=None,
            reason=said,
        )
    reason = known.reason or ("" if known.outcome == "planned" else said)
    return msgspec.structs.replace(known, since=pod.since or known.since, reason=reason)
