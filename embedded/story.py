"""What the nodes of a cluster tell of what has befallen them: Events and counters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from embedded.cluster import Cluster, Node
from runtime.errors import KubeError

_COUNTERS: Final = (
    "gputopo_plugin_xids_total",
    "gputopo_plugin_health_events_total",
    "gputopo_plugin_nvml_errors_total",
    "gputopo_plugin_device_healthy",
)
_LINE: Final = re.compile(r"(\w+)(\{.*\})? ([0-9.e+]+)")


def tell_story(cluster: Cluster, nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the Events of these nodes in order of time, then what their plugins have counted."""
    if not nodes:
        return ()
    return (*_events(cluster, nodes), *_counters(cluster.nodes[name] for name in nodes))


def _events(cluster: Cluster, nodes: Sequence[str]) -> Iterator[str]:
    try:
        body = cluster.client.get("/api/v1/namespaces/default/events")
    except KubeError:
        return
    found: list[dict[str, Any]] = msgspec.json.decode(body)["items"]
    ours = [one for one in found if one["involvedObject"]["name"] in nodes]
    for one in sorted(ours, key=lambda one: (one["firstTimestamp"], one["metadata"]["name"])):
        clock = one["firstTimestamp"][11:19]
        again = f" ({one['count']} times)" if one["count"] > 1 else ""
        where = one["involvedObject"]["name"]
        yield f"{clock}  {where}  {one['reason']:<13} {one['message']}{again}"


def _counters(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        try:
            with urlopen(f"{node.ops_url}/metrics", timeout=5) as answer:  # noqa: S310 - our own
                lines = answer.read().decode().splitlines()
        except (URLError, OSError):
            continue
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None or match[1] not in _COUNTERS:
                continue
            # Counters that counted, and GPUs that are not well.
            if (float(match[3]) > 0) != (match[1] == "gputopo_plugin_device_healthy"):
                yield f"{node.spec.name}  {line}"
