"""How one kubelet behaves."""

from __future__ import annotations

from pathlib import Path

import msgspec

from embedded.kubelet.endpoint import DIAL_TIMEOUT
from embedded.kubelet.inventory import STOP_GRACE
from embedded.kubelet.numa import Policy


class KubeletSettings(msgspec.Struct, frozen=True):
    """A node's size and its kubelet's ways. Times are in seconds.

    `topology_policy` aligns devices by the NUMA nodes that the plugin tells; `numa_nodes` are the
    machine's, () for those that devices name. `disconnect_by_resource` is kubelet's way up to 1.36
    (an old plugin's end disconnects the new one). `status_period` is between looks at node.status;
    a change is written at once. `first_backoff` is before a container is tried again.
    `static_pods` is the folder whose files are pods to run, looked at every `file_period`.
    """

    node_name: str
    cpu: str = "96"
    memory: str = "512Gi"
    pods: int = 110
    topology_policy: Policy = "none"
    numa_nodes: tuple[int, ...] = ()
    seed: int = 0
    labels: dict[str, str] = {}
    disconnect_by_resource: bool = True
    status_period: float = 0.5
    dial_timeout: float = DIAL_TIMEOUT
    stop_grace: float = STOP_GRACE
    first_backoff: float = 0.5
    resources_rate: float = 100.0
    resources_burst: int = 10
    static_pods: Path | None = None
    file_period: float = 0.2
