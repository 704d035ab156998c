"""Every metric of the device plugin. Series whose labels are known start at zero."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from deviceplugin.gauges import DeviceGauges
from deviceplugin.outcomes import FAILED, OK, REFUSED, Drift, Outcome


class Rpc(StrEnum):
    """The calls of kubelet that are measured."""

    PREFERRED = "GetPreferredAllocation"
    ALLOCATE = "Allocate"


class Cause(StrEnum):
    """Why the plugin registers."""

    START = "start"
    KUBELET_SOCKET = "kubelet_socket"  # it was created again: kubelet has restarted
    OWN_SOCKET = "own_socket"  # ours was deleted
    STREAM_ENDED = "stream_ended"  # kubelet closed ListAndWatch
    STREAM_MISSING = "stream_missing"  # it registered us and never opened ListAndWatch
    FORGOTTEN = "forgotten"  # the stream is open, and kubelet knows of no device
    RETRY = "retry"  # the attempt before failed


_RESULTS = (OK, FAILED)

# From a tenth of the target (1 ms) to kubelet's patience with us.
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.5)


class Metrics:
    """The plugin's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.preferred = Counter(
            "gputopo_plugin_preferred_allocations",
            "Containers that kubelet asked a preference for: exact, best, drift, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.drift = Counter(
            "gputopo_plugin_drift",
            "Containers that could not get the set their pod was bound with, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.promised_taken = Counter(
            "gputopo_plugin_promised_taken",
            "GPUs preferred for a pod although another bound pod had been promised them.",
            registry=self.registry,
        )
        self.allocations = Counter(
            "gputopo_plugin_allocations",
            "Allocate answers for a container: ok, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.realised = Counter(
            "gputopo_plugin_realised",
            "Annotated pods read back from kubelet: honoured, mismatched.",
            ["outcome"],
            registry=self.registry,
        )
        self.rpc_seconds = Histogram(
            "gputopo_plugin_rpc_seconds",
            "Time from a call of kubelet to its answer.",
            ["rpc"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.choice_seconds = Histogram(
            "gputopo_plugin_choice_seconds",
            "The part of GetPreferredAllocation that is ours: without PodResources and API server.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.pod_resources = Counter(
            "gputopo_plugin_pod_resources_reads",
            "Calls of kubelet's PodResources List.",
            ["result"],
            registry=self.registry,
        )
        self.registrations = Counter(
            "gputopo_plugin_registrations",
            "Attempts to register with kubelet.",
            ["cause", "result"],
            registry=self.registry,
        )
        self.registered = Gauge(
            "gputopo_plugin_registered",
            "1 while kubelet watches the device list of a resource.",
            ["resource"],
            registry=self.registry,
        )
        self.registered_at = Gauge(
            "gputopo_plugin_registered_timestamp_seconds",
            "When kubelet last took the registration of a resource, in seconds since 1970.",
            ["resource"],
            registry=self.registry,
        )
        self.nvml_silence = Gauge(
            "gputopo_plugin_nvml_silence_seconds",
            "For how long the thread that speaks to NVML has not moved; below 1 while all is well.",
            registry=self.registry,
        )
        self.devices = DeviceGauges(self.registry)
        self.health_events = Counter(
            "gputopo_plugin_health_events",
            "Events of GPUs by what they did: ignore, degrade, unhealthy.",
            ["kind", "response"],
            registry=self.registry,
        )
        self.xids = Counter(
            "gputopo_plugin_xids",
            'XIDs that the driver reported, by GPU ("" if it could not tell) and number.',
            ["uuid", "xid"],
            registry=self.registry,
        )
        self.nvml_errors = Counter(
            "gputopo_plugin_nvml_errors",
            "NVML calls that failed: init, wait, probe, discovery.",
            ["stage"],
            registry=self.registry,
        )
        self.config_reloads = Counter(
            "gputopo_plugin_config_reloads",
            "Configurations read after the start: ok, failed (the one before stays in force).",
            ["result"],
            registry=self.registry,
        )
        self.events = Counter(
            "gputopo_plugin_events",
            "Events of the Node: ok, failed, dropped (too many at once, or no right to write).",
            ["result"],
            registry=self.registry,
        )
        self.writes = Counter(
            "gputopo_plugin_api_writes",
            "Patches of the own Node's annotations.",
            ["result"],
            registry=self.registry,
        )
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for outcome in (*Outcome, REFUSED):
            self.preferred.labels(str(outcome))
        for drift in Drift:
            self.drift.labels(str(drift))
        for outcome in (OK, REFUSED):
            self.allocations.labels(outcome)
        for outcome in ("honoured", "mismatched"):
            self.realised.labels(outcome)
        for rpc in Rpc:
            self.rpc_seconds.labels(str(rpc))
        for result in _RESULTS:
            self.pod_resources.labels(result)
            self.writes.labels(result)
            self.config_reloads.labels(result)
            for cause in Cause:
                self.registrations.labels(str(cause), result)
        for result in (*_RESULTS, "dropped"):
            self.events.labels(result)
        for stage in ("init", "wait", "probe", "discovery"):
            self.nvml_errors.labels(stage)
