"""Nodes and pods as large as a real kubelet and API server make them."""

from __future__ import annotations

from typing import Any, Final

from tests.bench.fleet import node, pod
from topology.model import NodeTopology
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    Assignment,
    NodeState,
    encode_assignment,
    encode_state,
)

IMAGES: Final = 25
"""kubelet reports up to 50 images, the largest first."""

_TIME: Final = "2026-01-01T00:00:00Z"
_CONDITIONS: Final = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "is posting ready status"),
)


def kubelet_node(name: str, topology: NodeTopology) -> dict[str, Any]:
    """Return a Node with what kubelet and feature discovery say: images, conditions, labels."""
    made = node(name, topology)
    made["metadata"]["uid"] = f"node-{name}"
    made["metadata"]["labels"] |= {
        f"feature.node.kubernetes.io/cpu-cpuid.FEATURE{number}": "true" for number in range(40)
    }
    made["spec"] = {"podCIDR": "10.1.0.0/24", "providerID": f"cloud://zone/{name}", "taints": []}
    made["status"] |= {
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": f"kubelet {text}",
                "lastHeartbeatTime": _TIME,
                "lastTransitionTime": _TIME,
            }
            for kind, status, reason, text in _CONDITIONS
        ],
        "addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "Hostname", "address": name},
        ],
        "nodeInfo": {
            "machineID": "0" * 32,
            "kernelVersion": "6.8.0",
            "osImage": "Linux",
            "containerRuntimeVersion": "containerd://2.1",
            "kubeletVersion": "v1.36.5",
            "architecture": "amd64",
        },
        "images": [
            {
                "names": [
                    f"images.example/team/image-{number}@sha256:{number:064x}",
                    f"images.example/team/image-{number}:1.{number}",
                ],
                "sizeBytes": 100_000_000 + number,
            }
            for number in range(IMAGES)
        ],
    }
    return made


def beat(made: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the Node after a heartbeat: nothing that a scheduler cares for has changed."""
    told = [
        {**one, "lastHeartbeatTime": f"{_TIME}{number}"} for one in made["status"]["conditions"]
    ]
    return {**made, "status": {**made["status"], "conditions": told}}


def ill(made: dict[str, Any], generation: int) -> dict[str, Any]:
    """Return the Node after its plugin found a GPU ill, or well again, in turns."""
    name = made["metadata"]["name"]
    unhealthy = {f"GPU-{name}-3": "XID 79"} if generation % 2 else {}
    state = encode_state(NodeState(generation=generation, unhealthy=unhealthy))
    notes = {**made["metadata"]["annotations"], STATE_KEY: state}
    return {**made, "metadata": {**made["metadata"], "annotations": notes}}


def bound_pod(name: str, on: str, gpus: tuple[int, ...]) -> dict[str, Any]:
    """Return a running pod that holds these GPUs of a node of `fleet.node`."""
    uuids = tuple(f"GPU-{on}-{index}" for index in gpus)
    held = encode_assignment(Assignment(containers={"main": uuids}))
    made = pod(name, len(gpus), "bench", {ASSIGNMENT_KEY: held})
    made["metadata"] |= {"uid": f"uid-{name}", "namespace": "default"}
    made["spec"]["nodeName"] = on
    made["status"] = {"phase": "Running"}
    return made
