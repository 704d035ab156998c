"""One node as the cases of the contract see it: what they may do to it, and what they may ask.

Nothing here says what the node is made of. `EmbeddedWorld` is made of the embedded API server and
kubelet; a world of real components need only offer the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from topology.wire import NodeState

RESOURCE = "nvidia.com/gpu"
NAMESPACE = "contract"

Sets = Mapping[str, tuple[int, ...]]
"""Container to GPUs, by their place in the node's order."""


class PodPlan(msgspec.Struct, frozen=True):
    """A pod to be: GPUs wanted by each container, and the set that its Binding carries.

    `sets` None: the Binding carries none. `raw` stands in the annotation as it is, instead.
    """

    name: str
    counts: dict[str, int]
    sets: dict[str, tuple[int, ...]] | None = None
    raw: str | None = None
    strict: bool = False
    sidecars: tuple[str, ...] = ()


class World(Protocol):
    """A node with eight GPUs of a DGX-1V, one device plugin, one kubelet and one API server."""

    def bind(self, pod: PodPlan) -> str:
        """Create the pod and POST its Binding; return its UID. The plugin is not waited for."""

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""

    def phase(self, name: str) -> tuple[str, str]:
        """Return a pod's phase and message, ("", "") if there is no such pod."""

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

    def uid(self, name: str) -> str:
        """Return a pod's UID."""

    def allocatable(self) -> int:
        """Return how many GPUs node.status offers."""

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs' uuids in the node's order."""

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the plugin of now (``drift_total``)."""

    def ready(self) -> bool:
        """Return whether the plugin's readiness probe passes."""

    def start_plugin(self) -> None:
        """Start the plugin and wait until its GPUs can be scheduled."""

    def kill_plugin(self) -> None:
        """End the plugin's process at once, without a warning; it is not started again."""

    def restart_kubelet(self) -> None:
        """End kubelet's process and start it again; containers run on."""

    def renew_kubelet_socket(self) -> None:
        """Delete kubelet.sock and create it anew, within one life of kubelet."""

    def delete_plugin_socket(self) -> None:
        """Delete the plugin's socket under its feet."""

    def registrations(self) -> int:
        """Return how often kubelet has taken a registration so far."""

    def cut_plugin_off(self, *, silently: bool) -> None:
        """Take the API server from the plugin: connections refused, or never answered."""

    def delay_watches(self) -> None:
        """Let the plugin's watches fall silent; single requests are answered."""

    def reconnect_plugin(self) -> None:
        """Give the API server back to the plugin."""

    def lose_gpu(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""

    def report_xid(self, gpu: int, xid: int) -> None:
        """Let the driver report an XID."""

    def heal_gpus(self) -> None:
        """Let all GPUs be well again."""

    def clear(self) -> None:
        """Delete all pods, undo all faults, and wait until the node is as at the start."""

    def close(self) -> None:
        """End everything."""
