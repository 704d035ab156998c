"""A small cluster as the cases of the scheduler see it: what they may do to it, what they may ask.

Nothing here says what the cluster is made of. `EmbeddedCluster` is made of the embedded API server,
kubelets and kube-scheduler; a cluster of real components offers the same. Ours are the real
processes on both: a device plugin a node, each on a mock NVML, and two pairs of kube-scheduler and
extender, of which one leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from tests.contract.world import NAMESPACE, RESOURCE
from topology.wire import NodeState

__all__ = ["MACHINES", "NAMESPACE", "RESOURCE", "Binding", "Cluster", "PodPlan", "Sets"]

MACHINES: Final[Mapping[str, str]] = {
    "n1": "dgx1-v100",
    "n2": "dgx1-v100",
    "n3": "hgx-h100-8x-ib",
    "n4": "pcie-8x-two-switches-nic-one-socket",
}
"""Node to machine, each of eight GPUs: two are equal, one is faster, one has no NVLink."""

Sets = Mapping[str, frozenset[str]]
"""Container to GPUs. A GPU is called by its node and its place there, such as ``n1/3``."""

Effect = Literal["NoSchedule", "PreferNoSchedule"]
Fate = Literal["free", "held", "withheld", "lost"]
"""What befalls a request: nothing; it waits before it is passed on; it is passed on, and its answer
waits; it is passed on, and its answer is never given."""


class PodPlan(msgspec.Struct, frozen=True):
    """A pod to be: GPUs wanted by each container, and what else its author writes.

    `init` are init containers that end. `priority` is that of the pod's PriorityClass, which is
    made where it is not there yet; 0 for none. `prefers` is a node that a preferred node affinity
    names, `only` one that the node selector does. `notes` are annotations.
    """

    name: str
    gpus: dict[str, int]
    init: dict[str, int] = {}
    scheduler: str = "gputopo"
    priority: int = 0
    prefers: str | None = None
    only: str | None = None
    tolerates: tuple[str, ...] = ()
    notes: dict[str, str] = {}


class Binding(msgspec.Struct, frozen=True):
    """A Binding that an extender has sent and that has not come to its end.

    `taken` tells that the API server has it, and only its answer waits.
    """

    pair: str
    pod: str
    node: str
    sets: dict[str, frozenset[str]]
    taken: bool


class Cluster(Protocol):
    """Four nodes of `MACHINES`, and what schedules on them."""

    kind: str
    """``embedded`` or ``real``."""

    def start(self) -> None:
        """Start everything; `settle` waits for it."""

    def submit(self, pod: PodPlan) -> str:
        """Create the pod; return its UID."""

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""

    def annotate(self, name: str, text: str) -> None:
        """Change an annotation of the pod that nobody of ours reads."""

    def phase(self, name: str) -> tuple[str, str, str]:
        """Return a pod's phase, reason and message; three "" if there is no such pod."""

    def verdict(self, name: str) -> tuple[str, str]:
        """Return reason and message of a pod's PodScheduled condition."""

    def events(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return reason and note of the events about a pod, oldest first."""

    def version(self, name: str) -> str:
        """Return a pod's resourceVersion: it changes with every write to it."""

    def uid(self, name: str) -> str:
        """Return a pod's UID."""

    def node_of(self, name: str) -> str | None:
        """Return the node that the pod is bound to, None if it is not or is not there."""

    def set_of(self, name: str) -> Sets | None:
        """Return what the pod's annotation names, None if it has none."""

    def running(self) -> Mapping[str, Sets]:
        """Map each pod to its running containers, and each to the GPUs its environment names."""

    def state(self, node: str) -> NodeState | None:
        """Return what the node's annotation says, None if there is none."""

    def held(self, node: str) -> Mapping[str, frozenset[str]]:
        """Return the node's published allocations: pod UID to GPUs."""

    def allocatable(self, node: str) -> int:
        """Return how many GPUs node.status offers."""

    def cordon(self, node: str, on: bool = True) -> None:
        """Mark a node unschedulable, or schedulable again."""

    def taint(self, node: str, effect: Effect) -> None:
        """Give a node a taint of the key ``contract``."""

    def untaint(self, node: str) -> None:
        """Take it away."""

    def lose_gpu(self, node: str, gpu: int) -> None:
        """Let a GPU fall off the bus."""

    def heal_gpus(self, node: str) -> None:
        """Let all GPUs of a node be well again."""

    def leader(self) -> str:
        """Return the name of the pair whose kube-scheduler leads, "" if none does."""

    def kill_leader(self) -> None:
        """End kube-scheduler and extender of the leading pair at once, without a warning."""

    def restart_extender(self) -> None:
        """Kill the leading pair's extender and start it again; kube-scheduler stays."""

    def bindings(self, fate: Fate) -> None:
        """Decide what befalls the Bindings that extenders send from now on."""

    def bind_answers(self, fate: Fate) -> None:
        """Decide what befalls extenders' answers to kube-scheduler's bind calls from now on."""

    def waiting_bindings(self) -> tuple[Binding, ...]:
        """Return the Bindings that wait because of `bindings`, oldest first."""

    def bind_calls(self) -> int:
        """Return how many bind calls kube-schedulers have made so far."""

    def abandoned_binds(self) -> int:
        """Return how many bind calls wait for an answer that kube-scheduler no longer waits for."""

    def hold_watches(self) -> None:
        """Let the watches of extenders and kube-schedulers fall silent; requests are answered."""

    def cut_watches(self) -> None:
        """Cut the extenders' watches; they cannot watch again before `release`."""

    def forget_history(self) -> None:
        """Let the API server forget all changes so far: who resumes from before is told 410."""

    def expired_watches(self) -> int:
        """Return how many of the extenders' watches were answered with 410 so far."""

    def release(self, pair: str = "") -> None:
        """Let go all that the verbs above hold back, or what they hold back of one pair."""

    def stop_api(self) -> None:
        """Take the API server away from everybody."""

    def vain_requests(self) -> int:
        """Return how many requests of extenders and kube-schedulers found no API server so far."""

    def start_api(self) -> None:
        """Let it come back, with all that was stored."""

    def explain(self, path: str) -> Any:
        """Ask the explain API of the leading pair's extender; returns the decoded answer."""

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the leading pair's extender, summed over labels that are not named.

        Its name comes without prefix, such as ``filter_total``.
        """

    def settle(self) -> None:
        """Delete all pods, undo all faults, and wait until the cluster is as at the start."""

    def close(self) -> None:
        """End everything."""
