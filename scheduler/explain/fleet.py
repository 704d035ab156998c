"""Answers about nodes and the cluster, out of the columns and the inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import UNKNOWN, Hardware, NodeFacts
from scheduler.engine.request import WHOLE_GPU_MILLI
from scheduler.explain.digest import describe_workload
from scheduler.explain.errors import UnknownNodeError
from scheduler.explain.fleet_shapes import (
    AmountAnswer,
    ClusterAnswer,
    ModelAnswer,
    NicAnswer,
    NodeAnswer,
    NodeGpu,
    ObtainableSet,
    SizeAnswer,
)
from scheduler.explain.listing import DIGITS, Lines, Make
from scheduler.explain.obtainable import LEVELS, obtainable
from scheduler.explain.shapes import HolderAnswer, LinkAnswer
from scheduler.explain.store import Store
from scheduler.explain.views import show_workload
from scheduler.kube.account import Account, holders
from scheduler.kube.inventory import Inventory
from scheduler.load.report import LoadReport
from topology.demands import pair_link
from topology.gpuset import EMPTY, GpuSet, positions, size
from topology.links import CELL_OF_LEVEL
from topology.model import NodeTopology
from topology.policies import choose
from topology.tables import Tables

Report = Callable[[str], LoadReport | None]


class Group(msgspec.Struct, frozen=True):
    """Nodes of equal hardware with the same GPUs free: how many, and one of them."""

    tables: Tables
    free: GpuSet
    count: int
    node: str


class Survey(msgspec.Struct, frozen=True):
    """What a cluster's answer is made of, taken at one moment; working it out may take a while."""

    answer: ClusterAnswer
    groups: tuple[Group, ...]

    def finish(self) -> ClusterAnswer:
        """Work out which sets are to be had. Touches nothing that others own."""
        sizes: dict[int, Counter[str]] = {}
        best: dict[int, tuple[float, str]] = {}
        largest = dict.fromkeys(LEVELS, 0)
        lost = free = 0.0
        for group in self.groups:
            found = obtainable(group.tables, group.free)
            lost += group.count * size(group.free) * found.link_loss
            free += group.count * size(group.free)
            for k, bandwidth in enumerate(found.bandwidths, 1):
                if bandwidth > best.get(k, (-1.0, ""))[0]:
                    best[k] = bandwidth, group.node
                for name, most in found.largest.items():
                    sizes.setdefault(k, Counter())[name] += group.count * (k <= most)
            for name, most in found.largest.items():
                largest[name] = max(largest[name], most)
        return msgspec.structs.replace(
            self.answer,
            link_loss=round(lost / free, DIGITS) if free else 0.0,
            largest=largest,
            sizes=tuple(
                SizeAnswer(
                    size=k,
                    nodes={name: sizes[k][name] for name in LEVELS},
                    bus_bandwidth_gbs=round(best[k][0], 3),
                    node=best[k][1],
                )
                for k in sorted(sizes)
            ),
        )


class Fleet:
    """Looks at nodes. `report` says what a node's load is made of."""

    def __init__(
        self,
        cluster: ClusterState,
        inventory: Inventory,
        store: Store,
        report: Report = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._store = store
        self._report = report

    def nodes(self) -> Lines:
        """Take all nodes by name."""
        return self._lines(sorted(self._cluster.columns.rows))

    def node(self, name: str) -> NodeAnswer:
        """Return one node in full. Raises UnknownNodeError."""
        facts, account = self._cluster.facts(name), self._inventory.account(name)
        if facts is None or account is None:
            raise UnknownNodeError(name)
        columns = self._cluster.columns
        row = columns.rows[name]
        topology = account.topology() if facts.hardware is not None else None
        return NodeAnswer(
            node=name,
            summary=next(self._lines([name]).parts())[0],
            gpus=self._gpus(facts, account, topology),
            links=_links(facts.hardware),
            nics=_nics(topology),
            sets=self._sets(facts.hardware, columns.free_set(row)),
            room=AmountAnswer(
                cpu=float(columns.cpu_capacity[row]) / 1000,
                free_cpu=float(columns.cpu[row]) / 1000,
                memory_mib=int(columns.memory_capacity[row]),
                free_memory_mib=int(columns.memory[row]),
                free_pods=int(columns.pods[row]),
            ),
            load=self._report(name),
        )

    def gpus(self, name: str) -> tuple[NodeGpu, ...]:
        """Return a node's GPUs and who holds them, without the rest. Raises UnknownNodeError."""
        facts, account = self._cluster.facts(name), self._inventory.account(name)
        if facts is None or account is None:
            raise UnknownNodeError(name)
        return self._gpus(facts, account, account.topology() if facts.hardware else None)

    def survey(self) -> Survey:
        """Take what the cluster's answer is made of."""
        cluster, columns = self._cluster, self._cluster.columns
        rows = np.fromiter(columns.rows.values(), np.int64, count=len(columns.rows))
        gpus = int(columns.gpus[rows].sum())
        free_milli = int(columns.share[rows].sum())
        wasted = float(self._wasted(rows).sum())
        outcomes = Counter(record.outcome for record in self._store)
        answer = ClusterAnswer(
            nodes=len(rows),
            known=int((columns.hardware[rows] != UNKNOWN).sum()),
            held_back=int(columns.held_back[rows].sum()),
            gpus=gpus,
            healthy=int(columns.healthy[rows].sum()),
            free=int(columns.free[rows].sum()),
            unallocated_pct=_percent(free_milli / WHOLE_GPU_MILLI, gpus),
            wasted_pct=_percent(wasted, gpus),
            link_loss=0.0,
            largest={},
            sizes=(),
            models=self._models(),
            reservations=len(cluster.claims),
            bound=outcomes["bound"],
            pending=outcomes["planned"] + outcomes["refused"] + outcomes["deferred"],
            records=len(self._store),
            record_bytes=self._store.nbytes,
            workload=show_workload(
                describe_workload(cluster.outlook.forecast(), cluster.sets.tables.mix)
            ),
        )
        return Survey(answer, self._groups())

    def _groups(self) -> tuple[Group, ...]:
        columns, tables = self._cluster.columns, self._cluster.sets.tables
        states: dict[int, list[str]] = {}
        for name, row in columns.rows.items():
            states.setdefault(int(columns.state[row]), []).append(name)
        return tuple(
            Group(
                tables=tables.of(columns.hardware_list[columns.state_hardware[state]]),
                free=columns.state_free[state],
                count=len(names),
                node=min(names),
            )
            for state, names in states.items()
            if state != UNKNOWN
        )

    def _models(self) -> tuple[ModelAnswer, ...]:
        columns = self._cluster.columns
        gpus: Counter[str] = Counter()
        healthy: Counter[str] = Counter()
        free: Counter[str] = Counter()
        # Most nodes are like many others: 5,000 of them take 1 ms so, one by one 14.
        alike = Counter(
            (make, columns.facts[row].healthy, state)
            for row, make, state in zip(*self._makes_and_states(), strict=True)
            if make != UNKNOWN
        )
        for (make, well, state), count in alike.items():
            models = columns.hardware_list[make].models
            left = EMPTY if state == UNKNOWN else columns.state_free[state]
            for model in models:
                gpus[model] += count
            for position in positions(well):
                healthy[models[position]] += count
            for position in positions(left):
                free[models[position]] += count
        return tuple(
            ModelAnswer(model, gpus[model], healthy[model], free[model]) for model in sorted(gpus)
        )

    def _makes_and_states(self) -> tuple[list[int], list[int], list[int]]:
        columns = self._cluster.columns
        rows = [*columns.rows.values()]
        return rows, columns.hardware[rows].tolist(), columns.state[rows].tolist()

    def _lines(self, names: list[str]) -> Lines:
        columns = self._cluster.columns
        rows = np.array([columns.rows[name] for name in names], np.int64)
        of = self._cluster.sets.tables.of
        return Lines(
            known=tuple(
                Make(tuple(sorted(set(hardware.models))), of(hardware))
                for hardware in columns.hardware_list
            ),
            names=names,
            makes=columns.hardware[rows].tolist(),
            sets=[
                EMPTY if state == UNKNOWN else columns.state_free[state]
                for state in columns.state[rows].tolist()
            ],
            gpus=columns.gpus[rows].tolist(),
            healthy=columns.healthy[rows].tolist(),
            free=columns.free[rows].tolist(),
            shares=columns.share[rows].sum(axis=1).tolist(),
            wasted=self._wasted(rows).tolist(),
            loads=columns.load[rows].tolist(),
            held_back=columns.held_back[rows].tolist(),
        )

    def _wasted(self, rows: IntArray) -> FloatArray:
        """Return what is free and of no use to the workload, in GPUs, by row."""
        columns, outlook = self._cluster.columns, self._cluster.outlook
        workload = outlook.workload()
        kind = outlook.kinds(columns.hardware[rows])
        waste = workload.waste(columns.cpu[rows], columns.share[rows], kind)
        known: FloatArray = np.where(kind == UNKNOWN, 0.0, waste / WHOLE_GPU_MILLI)
        return known

    def _gpus(
        self, facts: NodeFacts, account: Account, topology: NodeTopology | None
    ) -> tuple[NodeGpu, ...]:
        hardware = facts.hardware
        if hardware is None or topology is None:
            return ()
        held = holders(account, self._cluster.claims.all())
        free = facts.free_shares(self._cluster.claims.claimed(account.node))
        problems = {} if account.state is None else account.state.withheld | account.state.unhealthy
        cls = hardware.links
        return tuple(
            NodeGpu(
                position=position,
                uuid=gpu.uuid,
                index=gpu.index,
                model=gpu.model,
                memory_mib=gpu.memory_mib,
                numa_node=gpu.numa_node,
                switch=None if cls.switch[position] < 0 else cls.switch[position],
                healthy=bool(facts.healthy >> position & 1),
                problem=problems.get(gpu.uuid, ""),
                free_share=free[position] / WHOLE_GPU_MILLI,
                holders=tuple(
                    HolderAnswer(one.pod or self._name(one.uid), one.uid, one.how)
                    for one in held.get(gpu.uuid, ())
                ),
            )
            for position, gpu in enumerate(topology.gpus)
        )

    def _name(self, uid: str) -> str:
        """Return the name of a pod that only a claim knows: filter saw it."""
        record = self._store.get(uid)
        return "" if record is None else "/".join(record.key)

    def _sets(self, hardware: Hardware | None, free: GpuSet) -> tuple[ObtainableSet, ...]:
        if hardware is None:
            return ()
        tables = self._cluster.sets.tables.of(hardware)
        found = []
        for k in range(1, size(free) + 1):
            choice = choose(tables, free, k)
            link = choice.worst_link
            found.append(
                ObtainableSet(
                    size=k,
                    gpus=tuple(positions(choice.members)),
                    bus_bandwidth_gbs=round(choice.bus_bandwidth_gbs, 3),
                    worst_link=None if link is None else str(link),
                )
            )
        return tuple(found)


def _links(hardware: Hardware | None) -> tuple[LinkAnswer, ...]:
    if hardware is None:
        return ()
    cls = hardware.links
    return tuple(
        LinkAnswer((i, j), str(pair_link(cls, i, j)))
        for i in range(cls.count)
        for j in range(i + 1, cls.count)
    )


def _nics(topology: NodeTopology | None) -> tuple[NicAnswer, ...]:
    if topology is None:
        return ()
    return tuple(
        NicAnswer(nic.name, tuple(CELL_OF_LEVEL[level] for level in nic.gpus))
        for nic in topology.nics
    )


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, DIGITS) if whole else 0.0
