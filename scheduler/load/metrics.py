"""The metrics of load: per source and metric, never a series per node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scheduler.load.breaker import STATES, Breaker
from scheduler.load.errors import Outcome
from scheduler.load.samples import FAULTS, Fault, Metric

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class LoadMetrics:
    """Load's metrics on one registry. Children are made at once: they exist from 0 on."""

    def __init__(
        self, registry: CollectorRegistry, sources: tuple[str, ...], metrics: tuple[Metric, ...]
    ) -> None:
        circuit = Gauge(
            "gputopo_extender_load_circuit",
            "1 for the state that a source's circuit is in: only a closed one is trusted.",
            ["source", "state"],
            registry=registry,
        )
        self._circuit = {
            source: {state: circuit.labels(source, state) for state in STATES} for source in sources
        }
        failures = Gauge(
            "gputopo_extender_load_failures_in_a_row",
            "Rounds in a row that brought nothing from a source.",
            ["source"],
            registry=registry,
        )
        self._failures = {source: failures.labels(source) for source in sources}
        queries = Counter(
            "gputopo_extender_load_queries",
            "Questions to a source, by outcome.",
            ["source", "outcome"],
            registry=registry,
        )
        self._queries = {
            source: {outcome: queries.labels(source, outcome) for outcome in OUTCOMES}
            for source in sources
        }
        seconds = Histogram(
            "gputopo_extender_load_query_seconds",
            "Time of a question, its reading included, in seconds.",
            ["source"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._seconds = {source: seconds.labels(source) for source in sources}
        faults = Counter(
            "gputopo_extender_load_refused_samples",
            "Samples that were not taken, by reason.",
            ["metric", "reason"],
            registry=registry,
        )
        self._faults = {
            metric: {fault: faults.labels(metric, fault) for fault in FAULTS} for metric in metrics
        }
        nodes = Gauge(
            "gputopo_extender_load_nodes",
            "Nodes with a sample in use.",
            ["metric"],
            registry=registry,
        )
        self._nodes = {metric: nodes.labels(metric) for metric in metrics}
        ages = Gauge(
            "gputopo_extender_load_oldest_sample_seconds",
            "Age of the oldest sample in use.",
            ["metric"],
            registry=registry,
        )
        self._ages = {metric: ages.labels(metric) for metric in metrics}
        self.pods = Gauge(
            "gputopo_extender_load_estimated_pods",
            "Pods that are estimated, since samples may not show them yet.",
            registry=registry,
        )

    def asked(self, source: str, outcome: Outcome, seconds: float) -> None:
        """Count a question."""
        self._queries[source][outcome].inc()
        self._seconds[source].observe(seconds)

    def refused(self, metric: Metric, faults: Mapping[Fault, int]) -> None:
        """Count what was not taken."""
        for fault, count in faults.items():
            self._faults[metric][fault].inc(count)

    def circuit(self, source: str, breaker: Breaker) -> None:
        """Show a circuit."""
        for state, gauge in self._circuit[source].items():
            gauge.set(state == breaker.state)
        self._failures[source].set(breaker.failures)

    def covered(self, covered: Mapping[Metric, tuple[int, float]]) -> None:
        """Show how many nodes each metric has, and the age of its oldest sample in use."""
        for metric, (nodes, age) in covered.items():
            self._nodes[metric].set(nodes)
            self._ages[metric].set(age)
