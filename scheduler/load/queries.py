"""The default queries: for node-exporter 1.5 and newer, and dcgm-exporter.

Each gives one series a node, a share in use from 0 to 1. ``by ($labels)`` keeps the labels that may
name the node and drops the rest.
"""

from __future__ import annotations

from typing import Final

from scheduler.load.answers import Query
from scheduler.load.samples import Metric

NODE_LABELS: Final = (
    "node",
    "kubernetes_node",
    "node_name",
    "nodename",
    "Hostname",
    "instance",
)
"""The labels by which nodes are named in the usual scrape configurations, the surest first.

dcgm-exporter writes Hostname: the node's name where its NODE_NAME is set, as its manifests do.
"""

WINDOW: Final = 120.0
"""Seconds that rates look back: four scrapes at Prometheus' usual 30 s."""

_REAL_DEVICES: Final = '{device!~"lo|(veth|cali|lxc|cni|docker|br-|virbr|flannel|tap|tun).*"}'
"""Host side of pods' networks: they claim 10 Gbit/s whatever the wire does."""

_SCRAPED: Final = "max by ($labels) (timestamp(node_load1))"
"""One series a node-exporter, from the same scrape as its other metrics."""


def _rate(counter: str, selector: str = "") -> str:
    return f"rate({counter}{selector}[{WINDOW / 60:.0f}m])"


def _traffic(direction: str) -> str:
    """Return the share of each device's speed; a device of unknown speed says -1 Mbit/s."""
    rate = _rate(f"node_network_{direction}_bytes_total", _REAL_DEVICES)
    used = f"{rate} / (node_network_speed_bytes > 0)"
    # Without a label of its own `or` would take the other direction for the same series.
    return f'label_replace({used}, "direction", "{direction}", "", "")'


DEFAULT_QUERIES: Final[dict[Metric, Query]] = {
    "cpu": Query(
        "1 - avg by ($labels) (" + _rate("node_cpu_seconds_total", '{mode="idle"}') + ")",
        _SCRAPED,
        WINDOW,
    ),
    "memory": Query(
        "1 - max by ($labels) (node_memory_MemAvailable_bytes)"
        " / max by ($labels) (node_memory_MemTotal_bytes)",
        _SCRAPED,
    ),
    # The busiest device, in its busier direction.
    "network": Query(
        f"max by ($labels) ({_traffic('receive')} or {_traffic('transmit')})", _SCRAPED, WINDOW
    ),
    # The busiest device: the share of time in which it had work.
    "disk": Query(
        "max by ($labels) (" + _rate("node_disk_io_time_seconds_total") + ")", _SCRAPED, WINDOW
    ),
    # dcgm-exporter tells percent, and numbers near 2^63 where a GPU cannot tell (one in MIG mode).
    "gpu": Query(
        "avg by ($labels) (DCGM_FI_DEV_GPU_UTIL <= 100) / 100",
        "max by ($labels) (timestamp(DCGM_FI_DEV_GPU_UTIL))",
    ),
}
