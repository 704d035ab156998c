"""What a node's load was made of, as a value that an explanation can show."""

from __future__ import annotations

from typing import Literal

import msgspec


class MetricReport(msgspec.Struct, frozen=True):
    """One metric of a node. Values are shares in use, 0 to 1.

    `share` is its part in the load, 0 if no node has a sample in use. `value` is the newest
    sample at hand, `age_seconds` old and from `source`; a stale one is not used. `estimate` is
    what pods will add that the sample cannot show. `used` is what counted: the value with the
    estimate, the mean of the other nodes if there was no sample in use, None if the metric or the
    whole node was left out.
    """

    metric: str
    share: float
    state: Literal["fresh", "stale", "missing"]
    value: float | None = None
    age_seconds: float | None = None
    source: str | None = None
    estimate: float = 0.0
    used: float | None = None


class LoadReport(msgspec.Struct, frozen=True):
    """A node's load as of `at` (Unix seconds); None if nothing is known, which scores neutral.

    `pods` is how many pods the estimates are of.
    """

    node: str
    at: float
    load: float | None
    pods: int
    metrics: tuple[MetricReport, ...]
