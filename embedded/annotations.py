"""The annotations by which a demo steers its own cluster; none of them means anything outside."""

from __future__ import annotations

from typing import Final

RUN_SECONDS_KEY: Final = "embedded.gputopo.dev/run-seconds"
"""On a pod: how long its containers run, in seconds; without it they run for ever."""

PROBE_KEY: Final = "embedded.gputopo.dev/probe"
"""On a node: a mark that is written to see whether watches bring it."""
