"""The plugin's part of a pod's trace: its preference and its Allocate, below the Binding."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deviceplugin.admission.asking import Asking, assignment_of
from runtime.tracing import NO_TRACER, Tracer
from topology.errors import WireError


class Traces:
    """Sends spans. kubelet names no pod in Allocate: it follows the preference for its devices.

    Nothing is sent for a pod whose annotation carries no trace.
    """

    def __init__(self, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._expected: dict[frozenset[str], tuple[str, str]] = {}

    def now(self) -> int:
        """Return Unix nanoseconds."""
        return time.time_ns()

    def preferred(
        self, asking: Asking | None, devices: Sequence[str], outcome: str, since: int
    ) -> None:
        """Send what was preferred for the pod that was asking."""
        if not self._tracer.active or asking is None:
            return
        try:
            assignment = assignment_of(asking.pod)
        except WireError:
            return
        if assignment is None or not assignment.trace:
            return
        uid = asking.pod.metadata.uid
        span = self._tracer.begin("preferred allocation", assignment.trace, since=since)
        span.end(
            {"k8s.pod.uid": uid, "gputopo.outcome": outcome, "gputopo.devices": ",".join(devices)}
        )
        # Only the admission that goes on now can be meant by the Allocate that comes.
        self._expected = {frozenset(devices): (assignment.trace, uid)}

    def allocated(self, containers: Sequence[Sequence[str]], since: int, problem: str = "") -> None:
        """Send what was allocated, if the preference for it was seen."""
        if not self._tracer.active:
            return
        for devices in containers:
            known = self._expected.pop(frozenset(devices), None)
            if known is not None:
                trace, uid = known
                span = self._tracer.begin("allocate", trace, since=since)
                about = {"k8s.pod.uid": uid, "gputopo.devices": ",".join(devices)}
                span.end(about, problem=problem)
