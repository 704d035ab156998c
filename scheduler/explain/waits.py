"""What would help a pod that waits, out of the columns and the inventory as they are now."""

from __future__ import annotations

import numpy as np

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import Hardware
from scheduler.engine.request import PodRequest
from scheduler.explain.shapes import HolderAnswer, WaitingAnswer, WayAnswer
from scheduler.explain.store import Store
from scheduler.explain.waiting import Site, Way, closest_ways, promising
from scheduler.kube.account import Holder, holders
from scheduler.kube.inventory import Inventory
from topology.demands import worst_link
from topology.gpuset import GpuSet, positions
from topology.tables import Tables


class Waits:
    """Looks at what stands in the way of pods, over a cluster's state."""

    def __init__(self, cluster: ClusterState, inventory: Inventory, store: Store) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._store = store

    def show(self, request: PodRequest) -> WaitingAnswer:
        """Return what would help."""
        demand = request.demand
        cluster, columns = self._cluster, self._cluster.columns
        names = sorted(columns.rows)
        view = cluster.view(names)
        enough = view.annotated & ~view.held_back & (view.healthy >= demand.count)
        if demand.count and (demand.models or demand.memory_mib):
            enough &= view.allowed(demand) >= demand.count
        possible = int(enough.sum())
        if not possible:
            return WaitingAnswer(_never(request), 0, ())
        if demand.shares or not demand.count:
            return WaitingAnswer("pods on one of the possible nodes must end", possible, ())
        free = view.free.tolist()
        near = promising((names[at], free[at]) for at in np.flatnonzero(enough).tolist())
        people: dict[tuple[str, str], Holder] = {}
        tables: dict[Hardware, Tables] = {}
        sites = []
        for name in near:
            facts, account = cluster.facts(name), self._inventory.account(name)
            if facts is None or account is None or facts.hardware is None:
                continue
            tables[facts.hardware] = cluster.sets.tables.of(facts.hardware)
            held: dict[str, GpuSet] = {}
            for uuid, found in holders(account, cluster.claims.all()).items():
                for holder in found:
                    if holder.uid != request.uid:
                        who = holder.uid or holder.pod
                        people[name, who] = holder
                        held[who] = GpuSet(held.get(who, 0) | facts.set_of((uuid,)))
            now = cluster.free_for(request.uid, name)
            sites.append(Site(name, facts, now, held))
        ways = closest_ways(sites, demand, tables)
        if not ways:
            return WaitingAnswer(_never(request), 0, ())
        shown = tuple(self._show(way, people) for way in ways)
        return WaitingAnswer(_help(shown[0]), possible, shown)

    def _show(self, way: Way, people: dict[tuple[str, str], Holder]) -> WayAnswer:
        facts = self._cluster.facts(way.node)
        hardware = facts.hardware if facts is not None else None
        worst = None if hardware is None else worst_link(hardware.links, way.members)
        held = [people[way.node, who] for who in way.holders]
        return WayAnswer(
            node=way.node,
            gpus=tuple(positions(way.members)),
            missing=tuple(positions(way.missing)),
            pods=tuple(
                HolderAnswer(one.pod or self._name(one.uid), one.uid, one.how) for one in held
            ),
            worst_link=None if worst is None else str(worst),
            bus_bandwidth_gbs=round(way.bus_bandwidth_gbs, 3),
        )

    def _name(self, uid: str) -> str:
        record = self._store.get(uid)
        return "" if record is None else "/".join(record.key)


def _never(request: PodRequest) -> str:
    demand = request.demand
    kind = " of that model and memory" if demand.models or demand.memory_mib else ""
    linked = f", linked {demand.min_link} or better" if demand.min_link is not None else ""
    return f"no node could give {demand.count} healthy GPUs{kind}{linked}, even if it were empty"


def _help(way: WayAnswer) -> str:
    if not way.missing:
        return f"GPUs that would do are free on {way.node}: other demands stand against it"
    who = " and ".join(one.pod or one.uid for one in way.pods) or "pods that are ending"
    gpus = ", ".join(map(str, way.missing))
    return f"GPU {gpus} of {way.node} must become free, held by {who}"
