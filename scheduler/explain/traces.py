"""One trace a pod: its first filter call begins it, what comes after hangs on that."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from runtime.tracing import NO_TRACER, Span, Tracer

KEPT: Final = 4096
"""Pods whose trace is known."""


class Traces:
    """Begins spans by pod UID."""

    def __init__(self, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._roots: OrderedDict[str, str] = OrderedDict()

    def begin(self, name: str, uid: str) -> Span:
        """Begin a span of a pod's trace."""
        if not self._tracer.active:
            return self._tracer.begin(name)
        parent = self._roots.get(uid, "")
        span = self._tracer.begin(name, parent)
        if not parent:
            self._roots[uid] = span.traceparent
            if len(self._roots) > KEPT:
                self._roots.popitem(last=False)
        return span

    def root(self, uid: str) -> str:
        """Return the traceparent of a pod's first span, "" if there is none."""
        return self._roots.get(uid, "")
