"""Answers as Prometheus and the metrics API write them, and nodes and pods for them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from runtime.objects import Node, Pod
from scheduler.load.answers import PART
from scheduler.load.directory import Directory
from scheduler.load.nodes import NodeBook
from scheduler.load.queries import NODE_LABELS

DATA = Path(__file__).parent / "data"
TLS = Path(__file__).parent / "tls"

RESOURCE = "nvidia.com/gpu"

NOW = 1_800_000_000.0
"""The time of tests that need none of their own, in Unix seconds."""


def recorded(name: str) -> bytes:
    """Return a recorded answer."""
    return (DATA / f"{name}.json").read_bytes()


def vector(*series: tuple[dict[str, str], object], at: float = NOW) -> bytes:
    """Write an instant vector: labels and value of each series."""
    result = [{"metric": labels, "value": [at, str(value)]} for labels, value in series]
    return msgspec.json.encode(
        {"status": "success", "data": {"resultType": "vector", "result": result}}
    )


def value(node: str, number: object) -> tuple[dict[str, str], object]:
    """Write a series that tells a value."""
    return {"node": node, PART: "value"}, number


def taken(node: str, when: object) -> tuple[dict[str, str], object]:
    """Write a series that tells when the value was measured."""
    return {"node": node, PART: "taken"}, when


def directory(*names: str, **addresses: tuple[str, ...]) -> Directory:
    """Build a directory of nodes without addresses, and of nodes with."""
    return Directory.of({**dict.fromkeys(names, ()), **addresses}, NODE_LABELS)


def node(
    name: str, *, cpu: object = "8", memory: object = "32Gi", gpus: object = "4", address: str = ""
) -> Node:
    """Build a node; capacity and allocatable are the same."""
    amounts = {"cpu": cpu, "memory": memory, RESOURCE: gpus}
    addresses = [{"type": "InternalIP", "address": address}] if address else []
    return msgspec.convert(
        {
            "metadata": {"name": name},
            "status": {"allocatable": amounts, "capacity": amounts, "addresses": addresses},
        },
        Node,
    )


def pod(
    uid: str,
    node_name: str | None,
    *,
    cpu: object = 0,
    memory: object = 0,
    gpus: object = 0,
    phase: str = "Pending",
    started: float | None = None,
    **spec: Any,
) -> Pod:
    """Build a pod of one container."""
    requests = {"cpu": cpu, "memory": memory, RESOURCE: gpus}
    return msgspec.convert(
        {
            "metadata": {"name": uid, "namespace": "default", "uid": uid},
            "spec": {
                "nodeName": node_name,
                "containers": [{"name": "main", "resources": {"requests": requests}}],
                **spec,
            },
            "status": {"phase": phase, "startTime": None if started is None else rfc3339(started)},
        },
        Pod,
    )


def rfc3339(seconds: float) -> str:
    """Write a time as Kubernetes does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_metrics(*items: tuple[str, object, object], at: float = NOW, window: str = "30s") -> bytes:
    """Write a NodeMetricsList: name, CPU and memory of each node."""
    return msgspec.json.encode(
        {
            "kind": "NodeMetricsList",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": name, "creationTimestamp": rfc3339(at)},
                    "timestamp": rfc3339(at),
                    "window": window,
                    "usage": {"cpu": cpu, "memory": memory},
                }
                for name, cpu, memory in items
            ],
        }
    )


def book(*nodes: Node, problems: list[str] | None = None) -> NodeBook:
    """Fill a node book; `problems` hears of what does not read."""
    heard = [] if problems is None else problems
    made = NodeBook(
        RESOURCE, NODE_LABELS, lambda kind, name, what: heard.append(f"{kind} {name}: {what}")
    )
    made.keep(nodes)
    return made
