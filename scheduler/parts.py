"""The collaborators of a running extender, as the composition root has wired them."""

from __future__ import annotations

import msgspec

from runtime.objects import Node, Pod
from runtime.reflector import Sink
from scheduler.engine.cluster import ClusterState
from scheduler.engine.planner import Planner
from scheduler.explain.desk import Desk
from scheduler.explain.recorder import PodSink
from scheduler.explain.store import Store
from scheduler.explain.unasked import WaitingPods
from scheduler.explain.wiring import Explain
from scheduler.extender.handlers import Handlers
from scheduler.kube.binder import Binder
from scheduler.kube.fanout import Fanout
from scheduler.kube.inventory import Inventory
from scheduler.load.feed import LoadFeed
from scheduler.metrics import Metrics


class Extender(msgspec.Struct, frozen=True):
    """The collaborators of a running extender, wired."""

    cluster: ClusterState
    planner: Planner
    inventory: Inventory
    binder: Binder
    handlers: Handlers
    metrics: Metrics
    explain: Explain
    waiting: WaitingPods
    load: LoadFeed | None = None
    learns_sizes: bool = False

    @property
    def desk(self) -> Desk:
        """Where questions are answered."""
        return self.explain.desk

    @property
    def store(self) -> Store:
        """What is kept of decisions."""
        return self.explain.store

    @property
    def nodes(self) -> Sink[Node]:
        """Who is told of nodes. The inventory first: only it makes a node's row."""
        if self.load is None:
            return Fanout(self.inventory.nodes, self.explain.traits)
        return Fanout(self.inventory.nodes, self.explain.traits, self.load.nodes)

    @property
    def pods(self) -> Sink[Pod]:
        """Who is told of pods."""
        explained = PodSink(self.explain.recorder)
        if self.load is None:
            return Fanout(self.inventory.pods, self.waiting, explained)
        return Fanout(self.inventory.pods, self.waiting, explained, self.load.pods)
