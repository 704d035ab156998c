"""A small cluster in engine terms, and requests to it."""

from __future__ import annotations

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NO_PRIORITY, NodeFacts, hardware_of
from scheduler.engine.framework import Framework
from scheduler.engine.planner import Planner
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from scheduler.engine.request import ContainerRequest, Demand, PodRequest
from topology.gpuset import EMPTY, GpuSet
from topology.model import NodeTopology
from topology.tables import DEFAULT_MIX


def facts(
    topology: NodeTopology | None,
    *,
    occupied: int = 0,
    unhealthy: int = 0,
    held_back: bool = False,
    lowest_priority: int = NO_PRIORITY,
) -> NodeFacts:
    """Say what is known of a node; None is a node without topology."""
    if topology is None:
        return NodeFacts(held_back=held_back, lowest_priority=lowest_priority)
    return NodeFacts(
        hardware=hardware_of(topology),
        uuids=tuple(gpu.uuid for gpu in topology.gpus),
        healthy=GpuSet(topology.everything & ~unhealthy),
        occupied=GpuSet(occupied),
        held_back=held_back,
        lowest_priority=lowest_priority,
    )


def cluster(**nodes: NodeFacts) -> ClusterState:
    """Build a cluster's state."""
    state = ClusterState(DEFAULT_MIX)
    for name, known in nodes.items():
        state.put(name, known)
    return state


def planner(
    state: ClusterState, framework: Framework | None = None, *, shortlist: int = 3
) -> Planner:
    """Build a planner with the built-in profiles and holds of 10 s."""
    return Planner(
        state,
        framework or built_in(),
        BUILT_IN,
        default_profile="training",
        hold_seconds=10.0,
        shortlist=shortlist,
    )


def request(
    *counts: int,
    uid: str = "u1",
    profile: str = "",
    init: tuple[int, ...] = (),
    priority: int = 0,
    preempts: bool = True,
    **demand: object,
) -> PodRequest:
    """Ask for GPUs, one container a count."""
    containers = tuple(ContainerRequest(f"c{n}", count) for n, count in enumerate(counts))
    return PodRequest(
        uid=uid,
        namespace="default",
        name=f"pod-{uid}",
        containers=containers,
        demand=Demand(sum(counts), **demand),
        profile=profile,
        init=tuple(ContainerRequest(f"i{n}", count) for n, count in enumerate(init)),
        priority=priority,
        preempts=preempts,
    )


NOTHING = EMPTY
