"""A copy of the cluster's state to try things on: what if, and where would it go.

Nothing that is done here is seen outside: columns, claims and caches are the copy's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts
from scheduler.engine.decision import Decision
from scheduler.engine.planner import Planner
from scheduler.engine.profiles import Profile
from scheduler.engine.request import PodRequest
from scheduler.errors import DemandError, ProfileError
from scheduler.explain.errors import NotThereError
from scheduler.explain.question import Changes, Cordon
from scheduler.kube.inventory import Inventory
from scheduler.kube.records import BoundPod
from topology.gpuset import GpuSet

WHAT_IF: Final = "what-if"
"""The name of the profile that the weights of a dry-run make."""


class Sandbox:
    """A copy that was changed. `changes` says how. Raises NotThereError for what is not there."""

    def __init__(self, planner: Planner, inventory: Inventory, changes: Changes) -> None:
        self.cluster: ClusterState = planner.cluster.copy()
        self.changes: list[str] = []
        self._inventory = inventory
        self._gone: dict[str, tuple[BoundPod, ...]] = {}
        self._cordoned: dict[str, int] = {}
        for number, key in enumerate(changes.remove):
            self._remove(key, f"changes.remove[{number}]")
        for number, cordon in enumerate(changes.cordon):
            self._cordon(cordon, f"changes.cordon[{number}]")
        for number, node in enumerate(changes.drain):
            self._drain(node, f"changes.drain[{number}]")
        self.planner = planner.over(self.cluster)
        self._profile = changes.profile
        try:
            planner.profile_called(changes.profile or "")
        except DemandError as error:
            raise NotThereError("changes.profile", error.problem) from None
        if changes.profile is not None:
            self.changes.append(f"profile {changes.profile}")
        if changes.weights:
            self.planner = self._reweigh(planner, changes)
            self._profile = WHAT_IF

    def place(self, request: PodRequest, nodes: Sequence[str], *, now: float) -> Decision:
        """Decide where a pod goes, and let it have its set in the copy.

        Raises DemandError for a profile that does not exist.
        """
        request = self.request(request)
        decision = self.planner.decide(request, nodes, now=now, vetted=False)
        best = decision.chosen
        if best is not None and (best.choice.uuids or not request.demand.count):
            self.cluster.reserve(
                request.uid, best.node, best.choice.uuids, now=now, wants=request.wants
            )
        return decision

    def request(self, request: PodRequest) -> PodRequest:
        """Return what a pod asks for under the profile of the changes."""
        if self._profile is None:
            return request
        return msgspec.structs.replace(request, profile=self._profile)

    def forget(self, pod: BoundPod | None, uid: str) -> None:
        """Take a pod away, if it is there."""
        self.cluster.release(uid)
        if pod is None:
            return
        self._gone[pod.node] = (*self._gone.get(pod.node, ()), pod)
        known = self._inventory.without(pod.node, self._gone[pod.node])
        if known is not None and pod.node in self.cluster.columns.rows:
            self._put(pod.node, known[0])
            self.cluster.put_room(pod.node, known[1])

    def _remove(self, key: str, place: str) -> None:
        pod = self._inventory.find(key)
        if pod is None:
            raise NotThereError(place, f"no bound pod {key[:80]!r} with GPUs is known")
        self.forget(pod, pod.uid)
        self.changes.append(f"pod {key} gone from {pod.node}")

    def _cordon(self, cordon: Cordon, place: str) -> None:
        facts = self.cluster.facts(cordon.node)
        if facts is None:
            raise NotThereError(f"{place}.node", f"no node {cordon.node[:80]!r} is known")
        mask = 0
        for number, gpu in enumerate(cordon.gpus):
            position = facts.uuids.index(gpu) if gpu in facts.uuids else gpu
            if not isinstance(position, int) or not 0 <= position < len(facts.uuids):
                raise NotThereError(
                    f"{place}.gpus[{number}]",
                    f"{cordon.node} has no GPU {str(gpu)[:80]!r}; it has {len(facts.uuids)}",
                )
            mask |= 1 << position
        self._cordoned[cordon.node] = self._cordoned.get(cordon.node, 0) | mask
        self._put(cordon.node, facts)
        self.changes.append(f"GPU {', '.join(map(str, cordon.gpus))} of {cordon.node} cordoned")

    def _put(self, node: str, facts: NodeFacts) -> None:
        healthy = GpuSet(facts.healthy & ~self._cordoned.get(node, 0))
        self.cluster.put(node, msgspec.structs.replace(facts, healthy=healthy))

    def _drain(self, node: str, place: str) -> None:
        if not self.cluster.drop(node):
            raise NotThereError(place, f"no node {node[:80]!r} is known")
        self.changes.append(f"node {node} drained")

    def _reweigh(self, planner: Planner, changes: Changes) -> Planner:
        base = planner.profile_called(changes.profile or "")
        profile = Profile(WHAT_IF, tuple(changes.weights.items()), base.tolerance, base.policy)
        weights = ", ".join(f"{name} {weight:g}" for name, weight in changes.weights.items())
        self.changes.append(f"weights {weights}")
        try:
            return planner.over(self.cluster, {WHAT_IF: profile})
        except ProfileError as error:
            raise NotThereError("changes.weights", error.problem) from None
