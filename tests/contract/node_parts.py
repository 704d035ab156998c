"""What a node of the contract consists of, and what is seen of its containers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runtime.kube import KubeClient


class Start(msgspec.Struct, frozen=True):
    """One start of a container; `env` is all that it saw."""

    pod: str
    container: str
    running: bool
    env: dict[str, str]


class NodeParts(msgspec.Struct, frozen=True):
    """Where the parts of a node are.

    `client` has every right. `plain` is the address at which the API server is to be had without
    TLS, since the gate has to read; the plugin's way leads there. `static_pods` is kubelet's folder
    for them.
    """

    folder: Path
    client: KubeClient
    plain: tuple[str, int]
    device_plugins_dir: Path
    plugins_registry_dir: Path
    pod_resources_socket: Path
    static_pods: Path


def write_kubeconfig(path: Path, port: int) -> Path:
    """Write a kubeconfig that leads to a loopback port without TLS, and return its path."""
    name = "gate"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_bytes(msgspec.yaml.encode(config))
    return path
