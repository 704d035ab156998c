"""Where `gputopo node` has its facts from: the API server, or a plugin's own port."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

import msgspec

from deviceplugin.guarding.report import NodeReport
from runtime.errors import AccessError, KubeError
from runtime.kube import KubeClient, connect
from runtime.objects import Node, Pod
from topology.errors import WireError
from topology.model import NodeTopology
from topology.wire import (
    STATE_KEY,
    TOPOLOGY_KEY,
    DeviceCondition,
    NodeState,
    decode_state,
    decode_topology,
)

TIMEOUT: Final = 10.0
NEWS: Final = 20
"""How many of the last Events are shown."""


class NodeReadingError(Exception):
    """What was asked for cannot be had, in one line."""


class News(msgspec.Struct, frozen=True):
    """Something that happened: when (RFC 3339), and what."""

    at: str
    what: str


class NodeView(msgspec.Struct, frozen=True):
    """What is shown. `holders` maps a GPU's uuid to the pods that have it or a part of it.

    `parts` maps a GPU's uuid to its MIG devices, in words. `withheld` has GPUs that are not
    offered whole, with the reason.
    """

    node: str
    driver: str
    topology: NodeTopology | None
    conditions: dict[str, DeviceCondition]
    holders: dict[str, tuple[str, ...]]
    parts: dict[str, tuple[str, ...]]
    withheld: dict[str, str]
    news: tuple[News, ...]
    problem: str


def from_plugin(url: str) -> NodeView:
    """Ask the plugin; raises NodeReadingError."""
    where = f"{url.rstrip('/')}/node"
    if not where.startswith(("http://", "https://")):
        raise NodeReadingError(f"{url}: a URL like http://10.0.0.7:8890 is wanted")
    try:
        with urlopen(where, timeout=TIMEOUT) as answer:  # noqa: S310 - the scheme is checked
            report = msgspec.json.decode(answer.read(), type=NodeReport)
        text = bytes(report.topology)
        topology = None if text == b"null" else decode_topology(text)
    except (HTTPError, URLError, OSError, ValueError, WireError) as error:
        raise NodeReadingError(f"{where}: {error}") from error
    gpu_of = {part.uuid: part.name.split(":")[0] for part in report.parts}
    by_index = {str(gpu.index): gpu.uuid for gpu in topology.gpus} if topology else {}
    parts: dict[str, tuple[str, ...]] = {}
    for part in report.parts:
        uuid = by_index.get(part.name.split(":")[0], "")
        parts[uuid] = (*parts.get(uuid, ()), f"{part.name} {part.profile}")
    holders: dict[str, tuple[str, ...]] = {}
    for device, pods in report.holders.items():
        uuid = device.split("::")[0]
        uuid = by_index.get(gpu_of.get(uuid, ""), uuid)
        holders[uuid] = tuple(dict.fromkeys((*holders.get(uuid, ()), *pods)))
    return NodeView(
        node=report.node,
        driver=report.driver,
        topology=topology,
        conditions=report.conditions,
        holders=holders,
        parts=parts,
        withheld={},
        news=tuple(
            News(_stamp(one.at), f"{one.what} ({one.response}) {' '.join(one.devices)}".rstrip())
            for one in report.reports
        ),
        problem=report.problem,
    )


def from_api_server(name: str, kubeconfig: str | None) -> NodeView:
    """Read what the plugin has published; raises NodeReadingError."""
    try:
        client = connect(kubeconfig)
        return _read(client, name)
    except (AccessError, KubeError, WireError, msgspec.MsgspecError) as error:
        raise NodeReadingError(f"node {name}: {error}") from error


def _read(client: KubeClient, name: str) -> NodeView:
    body = client.get(f"/api/v1/nodes/{quote(name)}", timeout=TIMEOUT)
    annotations = msgspec.json.decode(body, type=Node).metadata.annotations or {}
    if TOPOLOGY_KEY not in annotations:
        raise NodeReadingError(f"node {name}: no device plugin of gputopo has published anything")
    state = decode_state(annotations.get(STATE_KEY, '{"v":1,"generation":0}'))
    return NodeView(
        node=name,
        driver="",
        topology=decode_topology(annotations[TOPOLOGY_KEY]),
        conditions=state.conditions,
        holders=_holders(client, name, state),
        parts={},
        withheld=state.withheld,
        news=_events(client, name),
        problem="",
    )


def _holders(client: KubeClient, name: str, state: NodeState) -> dict[str, tuple[str, ...]]:
    query = {"fieldSelector": f"spec.nodeName={name}"}
    body = client.get("/api/v1/pods", query, timeout=TIMEOUT)
    pods = msgspec.json.decode(body, type=_Pods).items
    names = {pod.metadata.uid: pod.key for pod in pods}
    holders: dict[str, tuple[str, ...]] = {}
    for pod, uuids in state.allocations.items():
        for uuid in uuids:
            holders[uuid] = (*holders.get(uuid, ()), names.get(pod, pod))
    return holders


def _events(client: KubeClient, name: str) -> tuple[News, ...]:
    query = {"fieldSelector": f"involvedObject.kind=Node,involvedObject.name={name}"}
    try:
        body = client.get("/api/v1/namespaces/default/events", query, timeout=TIMEOUT)
    except KubeError:
        return ()  # who may read nodes need not be allowed to read Events
    found = msgspec.json.decode(body, type=_Events).items
    ours = [one for one in found if one.source.get("component") == "gputopo-device-plugin"]
    ours.sort(key=lambda one: one.last_timestamp or "")
    return tuple(
        News(
            one.last_timestamp or "",
            one.message + (f" ({one.count} times)" if (one.count or 1) > 1 else ""),
        )
        for one in ours[-NEWS:]
    )


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    message: str = ""
    last_timestamp: str | None = None
    count: int | None = None
    source: Mapping[str, Any] = {}


class _Events(msgspec.Struct, frozen=True):
    items: tuple[_Event, ...] = ()


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[Pod, ...] = ()


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
