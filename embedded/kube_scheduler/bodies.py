"""What kube-scheduler writes to the API server. Pure but for the time of day."""

from __future__ import annotations

import datetime as dt
from typing import Any

from runtime.objects import Pod


def unschedulable(pod: Pod, reason: str, text: str, nominated: str | None) -> dict[str, Any]:
    """Return the patch of a pod's status that says why it is not bound."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": text,
        "lastTransitionTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    status: dict[str, Any] = {"conditions": [condition]}
    if nominated is not None:
        status["nominatedNodeName"] = nominated
    # The version keeps a late write from the status of a pod that was bound meanwhile.
    return {"metadata": {"resourceVersion": pod.metadata.resource_version}, "status": status}


def failed_scheduling(pod: Pod, note: str) -> dict[str, Any]:
    """Return the event that tells a pod's author why it waits."""
    meta = pod.metadata
    about = {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
    return {
        "metadata": {"generateName": f"{meta.name}.", "namespace": meta.namespace},
        "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": pod.spec.scheduler_name or "",
        "reportingInstance": "embedded",
        "action": "Scheduling",
        "reason": "FailedScheduling",
        "type": "Warning",
        "regarding": about,
        # The API server takes no longer ones.
        "note": note[:1024],
    }


def default_binding(pod: Pod, node: str) -> dict[str, Any]:
    """Return the Binding of kube-scheduler's own binder: it carries no set."""
    meta = pod.metadata
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
