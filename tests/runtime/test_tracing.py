"""Spans go where OpenTelemetry's variables say, and nowhere else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime.tracing import NO_TRACER, open_tracer
from tests.otlp import Receiver


def test_without_an_endpoint_nothing_is_loaded() -> None:
    """The SDK would take 30 MiB."""
    code = (
        "import sys; from runtime.tracing import open_tracer;"
        "open_tracer('x', {}).begin('y').end();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert open_tracer("x", {}) is NO_TRACER
    assert NO_TRACER.begin("y").traceparent == ""


def test_spans_hang_on_the_parent_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its traceparent, whichever thread or process it was begun in."""
    with Receiver() as receiver:
        for name, value in receiver.environment.items():
            monkeypatch.setenv(name, value)
        tracer = open_tracer("tests", receiver.environment, **{"k8s.node.name": "n1"})
        first = tracer.begin("first")
        second = tracer.begin("second", first.traceparent, since=5)
        second.end({"gpus": 4}, problem="broken")
        first.end()
        tracer.begin("other", "no traceparent").end()
        tracer.close()
        child, parent, other = receiver.spans()
    assert (child.name, child.start, child.failed, child.attributes) == (
        "second",
        5,
        True,
        {"gpus": 4},
    )
    assert (child.trace, child.parent) == (parent.trace, parent.span)
    assert (parent.service, parent.parent, parent.failed) == ("tests", "", False)
    assert first.traceparent.startswith(f"00-{parent.trace}-{parent.span}-")
    assert other.parent == ""
    assert other.trace != parent.trace
