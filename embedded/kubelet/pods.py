"""The pods that this kubelet process knows, and how they stand in its own eyes."""

from __future__ import annotations

import threading
from typing import Literal

import msgspec

from runtime.objects import Pod

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


class PodRecord(msgspec.Struct, frozen=True):
    """A pod as kubelet sees it.

    `pod` is the API's newest word, `phase` kubelet's own, which runs ahead of it. `admitted` is
    None until admission has decided. `started` is the time of admission in seconds since the
    epoch, 0 for a pod that ran before this process did.
    """

    pod: Pod
    phase: Phase = "Pending"
    admitted: bool | None = None
    reason: str = ""
    message: str = ""
    started: float = 0.0

    @property
    def active(self) -> bool:
        """Whether it may hold devices: its end is known neither here nor at the API server."""
        return self.phase in ("Pending", "Running") and not self.pod.finished


class PodTable:
    """All pods of the node by UID. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, PodRecord] = {}

    def get(self, uid: str) -> PodRecord | None:
        """Return a pod's record, None if it is not known."""
        with self._lock:
            return self._records.get(uid)

    def find(self, namespace: str, name: str) -> PodRecord | None:
        """Return the newest pod of that name, None if there is none."""
        found = [r for r in self.records() if r.pod.key == f"{namespace}/{name}"]
        return found[-1] if found else None

    def put(self, pod: Pod) -> PodRecord:
        """Take a new pod, or the newer state of a known one."""
        with self._lock:
            known = self._records.get(pod.metadata.uid)
            record = PodRecord(pod) if known is None else msgspec.structs.replace(known, pod=pod)
            self._records[pod.metadata.uid] = record
            return record

    def mark(
        self,
        uid: str,
        phase: Phase,
        *,
        admitted: bool,
        reason: str = "",
        message: str = "",
        started: float | None = None,
    ) -> PodRecord | None:
        """Write down how a pod stands; None if it is gone."""
        with self._lock:
            known = self._records.get(uid)
            if known is None:
                return None
            record = msgspec.structs.replace(
                known,
                phase=phase,
                admitted=admitted,
                reason=reason,
                message=message,
                started=known.started if started is None else started,
            )
            self._records[uid] = record
            return record

    def drop(self, uid: str) -> PodRecord | None:
        """Forget a pod; return what was known of it."""
        with self._lock:
            return self._records.pop(uid, None)

    def records(self) -> tuple[PodRecord, ...]:
        """Return all records, oldest first."""
        with self._lock:
            return tuple(self._records.values())

    def active(self) -> frozenset[str]:
        """Return the UIDs of the active pods."""
        return frozenset(r.pod.metadata.uid for r in self.records() if r.active)
