"""The metrics of records, of the API's use and of Events."""

from __future__ import annotations

from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scheduler.explain.record import Outcome
from scheduler.explain.store import Store

EVENT_FATES: Final = ("written", "refused", "lost", "deleted")
SIZES: Final = ("1", "2", "3-4", "5-8", "9+")
_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class ExplainMetrics:
    """On one registry. Children are made at once where their labels are known: from 0 on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        decisions = Counter(
            "gputopo_explain_decisions",
            "Decisions by what came of them for the pod.",
            ["outcome"],
            registry=registry,
        )
        self.decisions = {outcome: decisions.labels(outcome) for outcome in get_args(Outcome)}
        quality = Histogram(
            "gputopo_explain_set_quality_ratio",
            "Bus bandwidth of bound sets over the best of their size on an empty node like it.",
            ["gpus"],
            buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0),
            registry=registry,
        )
        self.quality = {size: quality.labels(size) for size in SIZES}
        self.waited = Histogram(
            "gputopo_explain_wait_seconds",
            "Time from a pod's first filter call to its Binding.",
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600),
            registry=registry,
        )
        self.records = Gauge(
            "gputopo_explain_records", "Pods whose decisions are kept.", registry=registry
        )
        self.record_bytes = Gauge(
            "gputopo_explain_record_bytes", "Memory that they take.", registry=registry
        )
        self.dropped = Counter(
            "gputopo_explain_records_dropped",
            "Records that went before their time, for want of room.",
            registry=registry,
        )
        self.requests = Counter(
            "gputopo_explain_requests",
            "Questions to the API by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gputopo_explain_request_seconds",
            "Time of an answer, in seconds.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        events = Counter(
            "gputopo_explain_events",
            "Kubernetes Events by their fate.",
            ["fate"],
            registry=registry,
        )
        self.events = {fate: events.labels(fate) for fate in EVENT_FATES}
        self._dropped = 0

    def gauge(self, store: Store) -> None:
        """Set the gauges."""
        self.records.set(len(store))
        self.record_bytes.set(store.nbytes)
        self.dropped.inc(store.dropped - self._dropped)
        self._dropped = store.dropped


def size_label(gpus: int) -> str:
    """Return the label of a set's size."""
    if gpus <= 2:
        return str(max(gpus, 1))
    if gpus <= 4:
        return "3-4"
    return "5-8" if gpus <= 8 else "9+"
