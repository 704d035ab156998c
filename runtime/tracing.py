"""Spans over OTLP, if there is somewhere to send them; else they cost nothing.

Where to is told by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, over HTTP; its SDK is loaded only then. Spans name their parent
by a W3C traceparent, which travels with the pod: nothing here depends on threads or tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from runtime.errors import TracingError

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

Attributes = Mapping[str, str | int | float | bool]

_NOTHING: Final[Attributes] = MappingProxyType({})

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Span(Protocol):
    """Something that takes a while. `traceparent` names it to its children, "" if unsent."""

    traceparent: str

    def end(self, attributes: Attributes = _NOTHING, *, problem: str = "") -> None:
        """Say that it is over, what it was about, and what went wrong."""


class Tracer(Protocol):
    """Begins spans. Without `active` nothing is sent: who would work for it need not."""

    active: bool

    def begin(self, name: str, parent: str = "", *, since: int | None = None) -> Span:
        """Begin a span now, or at a time in Unix nanoseconds.

        A parent that does not read counts as none.
        """

    def close(self) -> None:
        """Send what is left."""


class _NoSpan:
    traceparent = ""

    def end(self, attributes: Attributes = _NOTHING, *, problem: str = "") -> None:
        """Do nothing."""


class NoTracer:
    """Sends nothing."""

    active = False

    def begin(self, name: str, parent: str = "", *, since: int | None = None) -> Span:  # noqa: ARG002 -- as a tracer
        """Return the span that does nothing."""
        return _NO_SPAN

    def close(self) -> None:
        """Do nothing."""


_NO_SPAN: Final = _NoSpan()
NO_TRACER: Final = NoTracer()


def open_tracer(service: str, env: Mapping[str, str], **about: str) -> Tracer:
    """Return what sends spans of a service, or NO_TRACER if no endpoint is set.

    `about` are attributes of the process. Raises TracingError if the SDK is not installed.
    """
    if not any(env.get(name) for name in ENDPOINTS):
        return NO_TRACER
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 -- 30 MiB
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 -- as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 -- as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 -- as above
    except ImportError as error:
        raise TracingError(
            f"{' or '.join(ENDPOINTS)} is set, and gputopo is installed without its extra "
            f"'tracing': {error}"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": service, **about}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _OtlpTracer(provider)


class _OtlpTracer:
    """Sends in the background, by a thread of the SDK's."""

    active = True

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gputopo")

    def begin(self, name: str, parent: str = "", *, since: int | None = None) -> Span:
        """Begin a span."""
        started = self._tracer.start_span(name, context=_context(parent), start_time=since)
        return _OtlpSpan(started)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _OtlpSpan:
    def __init__(self, span: Any) -> None:
        self._span = span
        known = span.get_span_context()
        self.traceparent = (
            f"00-{known.trace_id:032x}-{known.span_id:016x}-{int(known.trace_flags):02x}"
        )

    def end(self, attributes: Attributes = _NOTHING, *, problem: str = "") -> None:
        """Say that it is over."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 -- loaded by now

        self._span.set_attributes(attributes)
        if problem:
            self._span.set_status(Status(StatusCode.ERROR, problem))
        self._span.end()


def _context(parent: str) -> Any:
    """Return the SDK's context of a traceparent, an empty one if it does not read."""
    from opentelemetry import trace  # noqa: PLC0415 -- loaded by now
    from opentelemetry.context import Context  # noqa: PLC0415 -- as above

    match = _TRACEPARENT.fullmatch(parent)
    if match is None:
        # Not None: that would be whatever span the thread is in.
        return Context()
    known = trace.SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(match[3], 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(known), Context())
