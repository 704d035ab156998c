"""Every metric of the extender but load's own: histograms and totals, never a series per node.

5,000 series take 51 ms a scrape and hold the interpreter; per-node facts come from the plugins.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scheduler.engine.cluster import ClusterState
from scheduler.engine.decision import Decision

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
VERBS = ("filter", "prioritize", "bind")
OUTCOMES = ("accepted", "refused", "repeated", "passed_through", "deferred", "error")
BINDS = ("bound", "already_bound", "refused", "error", "timeout")
PLANS = ("confirmed", "chosen", "repeated", "unknown", "expired")


class Metrics:
    """The extender's metrics on one registry. Children are made at once: they exist from 0 on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "gputopo_extender_seconds",
            "Time of a verb, in seconds, its JSON included.",
            ["verb"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.seconds = {verb: seconds.labels(verb) for verb in VERBS}
        filters = Counter(
            "gputopo_extender_filter", "Filter calls by outcome.", ["outcome"], registry=registry
        )
        self.filters = {outcome: filters.labels(outcome) for outcome in OUTCOMES}
        binds = Counter(
            "gputopo_extender_bind", "Bind calls by outcome.", ["outcome"], registry=registry
        )
        self.binds = {outcome: binds.labels(outcome) for outcome in BINDS}
        plans = Counter(
            "gputopo_extender_plan",
            "What became of sets planned in filter.",
            ["outcome"],
            registry=registry,
        )
        self.plans = {outcome: plans.labels(outcome) for outcome in PLANS}
        self._refusals = Counter(
            "gputopo_extender_refusals",
            "Nodes refused, by the plugin that refused them.",
            ["plugin"],
            registry=registry,
        )
        self._unreadable = Counter(
            "gputopo_extender_unreadable_annotations",
            "Annotations that did not read and were treated as absent.",
            ["kind"],
            registry=registry,
        )
        self.unreadable = {kind: self._unreadable.labels(kind) for kind in ("node", "pod")}
        self._plugin_seconds = Counter(
            "gputopo_extender_plugin_seconds",
            "Time that a plugin took in all decisions, in seconds.",
            ["plugin"],
            registry=registry,
        )
        self._seconds_of: dict[str, Counter] = {}
        self._plugin_faults = Counter(
            "gputopo_extender_plugin_faults",
            "Decisions that went on without a plugin, by its method that failed or rests.",
            ["plugin", "method"],
            registry=registry,
        )
        self.bandwidth = Histogram(
            "gputopo_extender_bus_bandwidth_gbs",
            "Predicted bus bandwidth of the sets that were bound, in GB/s.",
            buckets=(5, 10, 20, 40, 80, 160, 240, 320, 480, 640, 960),
            registry=registry,
        )
        self.nodes = Gauge("gputopo_extender_nodes", "Nodes in the inventory.", registry=registry)
        self.claims = Gauge(
            "gputopo_extender_claims", "Sets planned or reserved, not yet seen.", registry=registry
        )
        self.drifted = Gauge(
            "gputopo_extender_drifted_pods",
            "Pods that have other GPUs, as their nodes tell, than were chosen for them.",
            registry=registry,
        )
        gpus = Gauge(
            "gputopo_extender_gpus",
            "GPUs of nodes whose topology is known.",
            ["state"],
            registry=registry,
        )
        self.gpus = {state: gpus.labels(state) for state in ("known", "healthy", "free")}

    def gauge(self, cluster: ClusterState) -> None:
        """Set the gauges; from the thread that owns the cluster's state."""
        columns = cluster.columns
        self.nodes.set(len(columns))
        self.claims.set(len(cluster.claims))
        self.gpus["known"].set(int(columns.gpus.sum()))
        self.gpus["healthy"].set(int(columns.healthy.sum()))
        self.gpus["free"].set(int(columns.free.sum()))

    def count_plugins(self, decision: Decision) -> None:
        """Count what the plugins took in a decision, and those that were left out."""
        for plugin, seconds in decision.seconds.items():
            self._of_plugin(plugin).inc(seconds)
        for fault in decision.faults:
            self._plugin_faults.labels(fault.plugin, fault.method).inc()

    def _of_plugin(self, plugin: str) -> Counter:
        # A dozen look-ups by label a decision are a twentieth of its time.
        known = self._seconds_of.get(plugin)
        if known is None:
            known = self._seconds_of[plugin] = self._plugin_seconds.labels(plugin)
        return known

    def refused(self, plugin: str, nodes: int) -> None:
        """Count refusals of one plugin."""
        self._refusals.labels(plugin).inc(nodes)
