"""From a request to a claim: decide, hold in filter, fix in bind. Time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from scheduler.engine.assign import name_gpus, split
from scheduler.engine.cluster import ClusterState
from scheduler.engine.cycle import schedule
from scheduler.engine.decision import Decision
from scheduler.engine.fence import Fence, Stopwatch
from scheduler.engine.framework import Framework
from scheduler.engine.profiles import Profile
from scheduler.engine.request import PodRequest
from scheduler.engine.reservations import Claim, Stage
from scheduler.engine.sets import allowed_set
from scheduler.errors import BindError, DemandError
from topology.errors import TopologyError
from topology.gpuset import gpuset
from topology.profiles import Profile as Policy
from topology.wire import PROFILE_KEY

NO_NODE: Final = "node is not in the inventory"
HELD_ELSEWHERE: Final = "an earlier bind of this pod is not settled yet"


class Grant(msgspec.Struct, frozen=True):
    """What a pod gets on a node: container -> uuids. Empty where the topology is unknown."""

    uid: str
    node: str
    containers: dict[str, tuple[str, ...]]
    bus_bandwidth_gbs: float = 0.0

    @property
    def uuids(self) -> frozenset[str]:
        """Every GPU of the pod."""
        return frozenset(uuid for uuids in self.containers.values() for uuid in uuids)


class Planner:
    """Decides over a cluster's state with one framework and its profiles.

    `stopwatch` times plugins, in seconds; `tell` is told of every decision.
    """

    def __init__(
        self,
        cluster: ClusterState,
        framework: Framework,
        profiles: Mapping[str, Profile],
        *,
        default_profile: str,
        hold_seconds: float,
        shortlist: int,
        stopwatch: Stopwatch = float,
        tell: Callable[[Decision], None] | None = None,
    ) -> None:
        self.cluster = cluster
        self._framework = framework
        self._profiles = {name: framework.check(profile) for name, profile in profiles.items()}
        self._default = default_profile
        self._hold_seconds = hold_seconds
        self._shortlist = shortlist
        self._fence = Fence(framework.guests, stopwatch)
        self._tell = tell

    def over(self, cluster: ClusterState, profiles: Mapping[str, Profile] = {}) -> Planner:
        """Return a planner with the same plugins for another state; `profiles` join the others.

        Nobody is told of its decisions. Raises ProfileError.
        """
        return Planner(
            cluster,
            self._framework,
            {**self._profiles, **profiles},
            default_profile=self._default,
            hold_seconds=self._hold_seconds,
            shortlist=self._shortlist,
        )

    def profile_of(self, request: PodRequest) -> Profile:
        """Return the profile that a pod names, or the default; raises DemandError if unknown."""
        return self.profile_called(request.profile)

    def profile_called(self, name: str) -> Profile:
        """Return the profile of this name, "" for the default; raises DemandError if unknown."""
        name = name or self._default
        profile = self._profiles.get(name)
        if profile is None:
            known = ", ".join(sorted(self._profiles))
            raise DemandError(PROFILE_KEY, f"no profile {name[:40]!r}; there are {known}")
        return profile

    def decide(
        self, request: PodRequest, nodes: Sequence[str], *, now: float, vetted: bool = True
    ) -> Decision:
        """Decide without any side effect; see `schedule` for `vetted`."""
        decision = schedule(
            self._framework,
            self.cluster.view(nodes),
            request,
            self.profile_of(request),
            at=now,
            shortlist=self._shortlist,
            vetted=vetted,
            fence=self._fence,
        )
        if self._tell is not None:
            self._tell(decision)
        return decision

    def plan(self, request: PodRequest, nodes: Sequence[str], *, now: float) -> Decision:
        """Decide, and hold the set on the best node in place of what was held for the pod."""
        self.cluster.outlook.observe(request)
        claim = self.cluster.claims.get(request.uid)
        if claim is not None and claim.stage is Stage.HELD:
            self.cluster.release(request.uid)
        decision = self.decide(request, nodes, now=now)
        best = decision.chosen
        if best is not None and (best.choice.uuids or not request.demand.count):
            self.cluster.hold(
                request.uid,
                best.node,
                best.choice.uuids,
                now=now,
                seconds=self._hold_seconds,
                wants=request.wants,
            )
        return decision

    def waits_for_plan(self, decision: Decision) -> bool:
        """Return whether a refused pod would have a node if nothing were held for other pods.

        A plan can end without any event that would make kube-scheduler try the pod again.
        """
        request = decision.request
        planned = self.cluster.claims.planned_nodes(but=request.uid)
        if not planned:
            return False
        policy = self.profile_of(request).policy
        return any(
            self._would_do(node, request, policy) for node in planned.intersection(decision.busy())
        )

    def _would_do(self, node: str, request: PodRequest, policy: Policy) -> bool:
        facts = self.cluster.facts(node)
        if facts is None or facts.hardware is None:
            return False
        demand = request.demand
        if demand.shares:
            shares = self.cluster.shares_for(request.uid, node, plans=False)
            fitting = gpuset(at for at, free in enumerate(shares) if free >= demand.share_milli)
            return bool(fitting & allowed_set(facts.hardware, demand))
        free = self.cluster.free_for(request.uid, node, plans=False)
        tables = self.cluster.sets.tables
        return tables.choose(facts.hardware, free, demand, policy) is not None

    def fix(self, request: PodRequest, node: str, *, now: float) -> tuple[Grant, str]:
        """Reserve a set on the node that was picked: the held one if it still stands.

        Returns the grant and how it came about: ``confirmed``, ``chosen`` (there was no plan for
        this node, or it fell), ``repeated`` or ``unknown`` (no topology, so no set).
        Raises BindError if the node will not do now, or another bind of the pod is not settled.
        """
        claim = self.cluster.claims.get(request.uid)
        if claim is not None and claim.stage is not Stage.HELD:
            if claim.node != node:
                raise BindError(f"{HELD_ELSEWHERE} (node {claim.node})")
            return self._grant(request, claim), "repeated"
        if claim is not None and self._stands(request, claim, node):
            return self._reserve(request, node, claim.uuids, now=now), "confirmed"
        if claim is not None:
            self.cluster.release(request.uid)
        best = self.decide(request, [node], now=now)
        if best.chosen is None:
            reasons = "; ".join(refusal.reason for refusal in best.refusals)
            raise BindError(reasons or NO_NODE, "refused")
        if not best.chosen.choice.uuids and request.demand.count:
            return Grant(request.uid, node, {}), "unknown"
        return self._reserve(request, node, best.chosen.choice.uuids, now=now), "chosen"

    def _reserve(
        self, request: PodRequest, node: str, uuids: tuple[str, ...], *, now: float
    ) -> Grant:
        claim = self.cluster.reserve(request.uid, node, uuids, now=now, wants=request.wants)
        try:
            return self._grant(request, claim)
        except (BindError, TopologyError):
            self.cluster.release(request.uid)
            raise

    def _stands(self, request: PodRequest, claim: Claim, node: str) -> bool:
        facts = self.cluster.facts(node)
        if claim.node != node or facts is None:
            return False
        if facts.held_back and request.demand.count:
            return False
        free = dict(zip(facts.uuids, self.cluster.shares_for(request.uid, node), strict=True))
        milli = request.demand.share_milli
        fits = all(free.get(uuid, 0) >= milli for uuid in claim.uuids)
        return fits and len(claim.uuids) == request.demand.count

    def _grant(self, request: PodRequest, claim: Claim) -> Grant:
        facts = self.cluster.facts(claim.node)
        if facts is not None and not request.demand.count:
            return Grant(claim.uid, claim.node, {})
        if facts is None or facts.hardware is None:
            raise BindError(NO_NODE, "refused")
        union = facts.set_of(claim.uuids)
        policy = self.profile_of(request).policy
        tables = self.cluster.sets.tables
        shares = split(facts.hardware, union, request, policy, tables)
        return Grant(
            claim.uid,
            claim.node,
            name_gpus(facts.uuids, shares),
            tables.bandwidth(facts.hardware, union),
        )
