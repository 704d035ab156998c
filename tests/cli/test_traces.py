"""From filter to Allocate in one trace a pod, sent by both daemons to a real OTLP receiver."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.otlp import Receiver


def test_one_trace_goes_from_filter_to_allocate() -> None:
    """The extender's spans and the plugin's, below each other, about one pod."""
    with Receiver() as receiver:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "demo", "--nodes", "1", "--pods", "3", "--json"],
            env={**os.environ, **receiver.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=90,
        )
        spans = receiver.spans()
    report = json.loads(done.stdout)
    assert report["running"] + report.get("completed", 0) >= 1
    binds = [span for span in spans if span.name == "bind"]
    assert len(binds) == report["bound"]
    whole = 0
    for bind in binds:
        trace = [span for span in spans if span.trace == bind.trace]
        assert {span.attributes["k8s.pod.uid"] for span in trace} == {
            bind.attributes["k8s.pod.uid"]
        }
        root = next(span for span in trace if not span.parent)
        assert (root.name, root.service) == ("filter", "gputopo-extender")
        assert bind.parent == root.span
        for span in trace:
            if span.service == "gputopo-device-plugin":
                assert span.name in {"preferred allocation", "allocate"}
                assert span.parent == bind.span
                assert span.start <= span.end
        whole += {"preferred allocation", "allocate"} <= {span.name for span in trace}
    assert whole >= 1
