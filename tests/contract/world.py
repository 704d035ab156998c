"""One node as the cases of the contract see it: what they may do to it, and what they may ask.

Nothing here says what the node is made of. `EmbeddedWorld` is made of the embedded API server and
kubelet, `RealWorld` of real components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from topology.wire import NodeState

RESOURCE = "nvidia.com/gpu"
NAMESPACE = "contract"
NODE = "n1"
MACHINE = "dgx1-v100"
GPUS = 8

Sets = Mapping[str, tuple[int, ...]]
"""Container to GPUs, by their place in the node's order."""

TopologyPolicy = Literal["none", "best-effort", "restricted", "single-numa-node"]


class Setup(msgspec.Struct, frozen=True):
    """How a node is set up.

    kubelet's topology manager, whether the plugin tells it of NUMA, which machine of eight GPUs it
    is, and whether kubelet's plugin watcher finds the plugin (else the plugin calls kubelet).
    """

    topology_policy: TopologyPolicy = "none"
    numa_hints: bool = True
    machine: str = MACHINE
    watched: bool = False


class PodPlan(msgspec.Struct, frozen=True):
    """A pod to be: GPUs wanted by each container, and the set that its Binding carries.

    `sets` None: the Binding carries none. `raw` stands in the annotation as it is, instead.
    `resource` is what is counted. `inits`, `sidecars` and `late` name the containers of `counts`
    that are init containers, in this order: sidecars run on, the others have ended as soon as they
    are started.
    """

    name: str
    counts: dict[str, int]
    sets: dict[str, tuple[int, ...]] | None = None
    raw: str | None = None
    strict: bool = False
    inits: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    resource: str = RESOURCE


class World(Protocol):
    """A node with eight GPUs of a DGX-1V, one device plugin, one kubelet and one API server.

    GPUs 0 to 3 are on NUMA node 0, the others on 1. While the API server is paused only
    `running`, `starts`, `held`, `count` and `ready` may be asked.
    """

    def bind(self, pod: PodPlan) -> str:
        """Create the pod and POST its Binding; return its UID. The plugin is not waited for."""

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""

    def add_static_pod(self, pod: PodPlan) -> str:
        """Put a pod into kubelet's folder of static pods; return the name that it goes by."""

    def remove_static_pod(self, pod: PodPlan) -> None:
        """Take a pod out of that folder."""

    def phase(self, name: str) -> tuple[str, str]:
        """Return a pod's phase and message, ("", "") if there is no such pod."""

    def uid(self, name: str) -> str:
        """Return a pod's UID, as the API server has it."""

    def device_health(self, name: str) -> dict[int, str]:
        """Return what a pod's status says of its containers' GPUs: Healthy or Unhealthy."""

    def crash(self, name: str, container: str) -> None:
        """Kill a container; kubelet starts it again."""

    def running(self) -> dict[str, dict[str, frozenset[int]]]:
        """Map each pod to its running containers and the GPUs that their environment names."""

    def starts(self, name: str) -> int:
        """Return how often a container of the pod was started."""

    def held(self) -> dict[str, dict[str, frozenset[int]]]:
        """Return what PodResources List says: pod to containers to GPUs, empty ones left out."""

    def state(self) -> NodeState | None:
        """Return what the Node's annotation says, None if there is none."""

    def configure(self, text: str) -> None:
        """Give the plugin another configuration of what is offered; it follows by itself."""

    def allocatable(self, resource: str = RESOURCE) -> int:
        """Return how many devices of a resource node.status offers."""

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs' uuids in the node's order."""

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the plugin of now (``drift_total``), summed over labels not named."""

    def ready(self) -> bool:
        """Return whether the plugin's readiness probe passes."""

    def start_plugin(self) -> None:
        """Start the plugin and wait until its GPUs can be scheduled."""

    def kill_plugin(self) -> None:
        """End the plugin's process at once, without a warning; it is not started again."""

    def replace_plugin(self) -> None:
        """Start a second plugin, wait until kubelet watches it, then end the first one well."""

    def stop_kubelet(self) -> None:
        """End kubelet's process; containers run on."""

    def start_kubelet(self) -> None:
        """Start kubelet's process again."""

    def restart_kubelet(self) -> None:
        """End kubelet's process and start it again; containers run on."""

    def renew_kubelet_socket(self) -> None:
        """Delete kubelet.sock and create it anew, within one life of kubelet."""

    def delete_plugin_socket(self) -> None:
        """Delete the plugin's socket under its feet."""

    def registrations(self) -> int:
        """Return how often kubelet has taken a registration of the plugin of now."""

    def cut_plugin_off(self, *, silently: bool) -> None:
        """Take the API server from the plugin: connections refused, or never answered."""

    def delay_watches(self) -> None:
        """Let the plugin's watches fall silent; single requests are answered."""

    def reconnect_plugin(self) -> None:
        """Give the API server back to the plugin."""

    def pause_api_server(self, *, silently: bool) -> None:
        """Take the API server from everybody: it answers nothing, or is not there to be asked."""

    def resume_api_server(self) -> None:
        """Let the API server go on, with whatever was asked meanwhile."""

    def expire_versions(self) -> None:
        """Restart the API server; nothing can be watched from a version of before (410 Gone)."""

    def cordon(self, text: str | None) -> None:
        """Annotate the Node with GPUs to be taken out of service, None for none."""

    def lose_gpu(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""

    def report_xid(self, gpu: int, xid: int) -> None:
        """Let the driver report an XID."""

    def partition(self, gpu: int, profiles: tuple[str, ...] | None) -> None:
        """Cut a GPU into MIG instances anew; None turns MIG off."""

    def heal_gpus(self) -> None:
        """Let all GPUs be well again."""

    def clear(self) -> None:
        """Delete all pods, undo all faults, and wait until the node is as at the start."""

    def close(self) -> None:
        """End everything."""
