"""How long a pod's deletion waits for its kubelet. Pure.

A bound pod is marked, its kubelet ends the containers and deletes it with a grace of 0. The
deletion's time is when it was asked for: nobody here counts the seconds down.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def deletion_grace(pod: Object, asked: int | None) -> int:
    """Return the seconds for `asked` (None: the pod's own), 0 to delete it now.

    A pod on no node and one that has ended go now. A deletion under way can only be shortened.
    """
    grace = asked if asked is not None else pod["spec"].get("terminationGracePeriodSeconds", 0)
    ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    if ended or not pod["spec"].get("nodeName"):
        return 0
    if grace < 0:
        grace = 1
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return min(int(grace), int(meta.get("deletionGracePeriodSeconds") or 0))
    return int(grace)
