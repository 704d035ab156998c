"""The best obtainable set of each free set, worked out once and looked up by state number.

For one demand and one policy the answers are arrays over the columns' state numbers, filled when
a state is first met: a decision over any number of nodes is then one take per array.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from statistics import fmean
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.columns import Columns, Hardware
from scheduler.engine.request import Demand
from topology.choice import Choice
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, gpuset, positions, size
from topology.model import TopologyClass
from topology.policies import choose
from topology.profiles import Profile as Policy
from topology.quality import bus_bandwidth
from topology.tables import Mix, Tables, tables_for

DEMANDS_KEPT: Final = 128
"""Demands whose answers are kept, the least recently used goes first: 33 bytes a state each."""

_FIRST: Final = 256
"""States that a fresh answer has room for."""


class SetChoice(msgspec.Struct, frozen=True):
    """The set on one node: its members, bus bandwidth in GB/s, and loss of what is left."""

    members: GpuSet
    uuids: tuple[str, ...]
    bus_bandwidth_gbs: float
    loss: float
    pair_score: int


UNKNOWN_SET: Final = SetChoice(EMPTY, (), 0.0, 0.0, 0)
"""What is chosen on a node of unknown topology: nothing, kubelet will."""


class ClassTables:
    """The tables of the classes that were met, for one mix; they stay as long as this does."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self._tables: dict[TopologyClass, Tables] = {}
        self._ranges: dict[Hardware, tuple[float, float]] = {}

    def copy(self) -> ClassTables:
        """Return a twin that changes by itself; the tables, which never change, are shared."""
        twin = ClassTables(self.mix)
        twin._tables, twin._ranges = dict(self._tables), dict(self._ranges)
        return twin

    def of(self, hardware: Hardware) -> Tables:
        """Return the tables of a machine's class; the first call builds them."""
        found = self._tables.get(hardware.links)
        if found is None:
            found = self._tables[hardware.links] = tables_for(hardware.links, self.mix)
        return found

    def bandwidth(self, hardware: Hardware, members: GpuSet) -> float:
        """Return the predicted bus bandwidth of exactly this set in GB/s."""
        tables = self.of(hardware)
        if tables.exact:
            return float(tables.quality[members])
        return bus_bandwidth(hardware.links, members)

    def range(self, hardware: Hardware) -> tuple[float, float]:
        """Return the worst and the best bus bandwidth that sets of the machine have, in GB/s."""
        found = self._ranges.get(hardware)
        if found is None:
            tables = self.of(hardware)
            if tables.exact:
                several = tables.quality[tables.sizes > 1]
                found = float(several.min(initial=np.inf)), float(several.max(initial=0.0))
            else:
                # Machines too large for tables are switched throughout: the whole is the best.
                found = (bus_bandwidth(hardware.links, tables.everything),) * 2
            self._ranges[hardware] = found
        return found

    def choose(
        self, hardware: Hardware, free: GpuSet, demand: Demand, policy: Policy
    ) -> Choice | None:
        """Return the set that the policy takes out of `free`, None if none will do."""
        allowed = allowed_set(hardware, demand)
        if size(GpuSet(free & allowed)) < demand.count:
            return None
        try:
            return choose(
                self.of(hardware),
                free,
                demand.count,
                profile=policy,
                min_link=demand.min_link,
                allowed=allowed,
            )
        except SelectionError:
            return None


def allowed_set(hardware: Hardware, demand: Demand) -> GpuSet:
    """Return the GPUs whose model and memory the demand takes."""
    return gpuset(
        position
        for position, (model, memory) in enumerate(
            zip(hardware.models, hardware.memory_mib, strict=True)
        )
        if demand.takes(model, memory)
    )


class Field(Enum):
    """What is known of the set chosen out of a free set; NaN where no set will do."""

    QUALITY = "predicted bus bandwidth in GB/s"
    LOSS = "what its going costs the rest, 0 to 1"
    NUMA = "how many NUMA nodes it lies on; unknown counts as one more"
    NIC = "mean level of its GPUs to their nearest NIC"


class BestSets:
    """Answers for one demand under one policy, by state number."""

    def __init__(
        self, columns: Columns, tables: ClassTables, demand: Demand, policy: Policy
    ) -> None:
        self._columns = columns
        self._tables = tables
        self._demand = demand
        self._policy = policy
        self._epoch = columns.epoch
        self._choices: dict[int, Choice] = {}
        self._allowed: list[int] = []
        self._allot(_FIRST)

    def _allot(self, capacity: int) -> None:
        self._met = np.zeros(capacity, np.bool_)
        self._values = {field: np.full(capacity, np.nan) for field in Field}

    def fill(self, states: IntArray) -> None:
        """Work out what is not known yet of these states; UNKNOWN is not among them."""
        columns = self._columns
        if self._epoch != columns.epoch:
            self._epoch = columns.epoch
            self._choices = {}
            self._allot(_FIRST)
        self._grow(len(columns.state_free))
        met = self._met.take(states)
        if met.all():
            return
        for state in set(states[~met].tolist()):
            hardware = columns.hardware_list[columns.state_hardware[state]]
            free = columns.state_free[state]
            choice = self._tables.choose(hardware, free, self._demand, self._policy)
            self._met[state] = True
            if choice is not None:
                self._choices[state] = choice
                self._values[Field.QUALITY][state] = choice.bus_bandwidth_gbs
                self._values[Field.LOSS][state] = choice.loss
                self._values[Field.NUMA][state] = _count_numa(hardware.links, choice.members)
                self._values[Field.NIC][state] = _mean_nic(hardware.links, choice.members)

    def _grow(self, states: int) -> None:
        if states <= len(self._met):
            return
        met, values = self._met, self._values
        self._allot(max(states, 2 * len(met)))
        self._met[: len(met)] = met
        for field, known in values.items():
            self._values[field][: len(met)] = known

    def values(self, field: Field, states: IntArray) -> FloatArray:
        """Return a field of filled states."""
        return self._values[field].take(states)

    def choice(self, state: int) -> Choice | None:
        """Return the chosen set of a filled state."""
        return self._choices.get(state)

    def allowed_counts(self) -> IntArray:
        """Return, by hardware number, how many GPUs the demand takes; the last entry is 0.

        UNKNOWN is -1 and so finds that last entry.
        """
        for hardware in self._columns.hardware_list[len(self._allowed) :]:
            self._allowed.append(size(allowed_set(hardware, self._demand)))
        return np.array([*self._allowed, 0], np.int64)


def _count_numa(links: TopologyClass, members: GpuSet) -> int:
    return len({links.numa[at] for at in positions(members)})


def _mean_nic(links: TopologyClass, members: GpuSet) -> float:
    return fmean(int(links.nic[at]) for at in positions(members))


class SetTables:
    """The answers of the demands met last, and what is known of each hardware."""

    def __init__(self, columns: Columns, tables: ClassTables) -> None:
        self.tables = tables
        self._columns = columns
        # By the policy's identity: hashing its orders would cost more than the look-up saves.
        self._kept: OrderedDict[tuple[Demand, int], tuple[Policy, BestSets]] = OrderedDict()
        self._ranges: list[tuple[float, float]] = []

    def use(self, mix: Mix) -> None:
        """Judge what is left by another mix from now on. What was answered before is forgotten."""
        self.tables = ClassTables(mix)
        self._kept.clear()

    def best(self, demand: Demand, policy: Policy) -> BestSets:
        """Return the answers for a demand under a policy."""
        key = (demand, id(policy))
        found = self._kept.get(key)
        if found is None:
            found = policy, BestSets(self._columns, self.tables, demand, policy)
            self._kept[key] = found
            if len(self._kept) > DEMANDS_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return found[1]

    def choose_one(self, row: int, among: GpuSet, policy: Policy) -> Choice:
        """Return the one of these free GPUs of a row whose going costs the rest least."""
        hardware = self._columns.hardware_list[int(self._columns.hardware[row])]
        return choose(
            self.tables.of(hardware),
            self._columns.free_set(row),
            1,
            profile=policy,
            allowed=among,
        )

    def ranges(self) -> tuple[FloatArray, FloatArray]:
        """Return each hardware number's worst and best bus bandwidth in GB/s.

        UNKNOWN finds 0 at the end.
        """
        for hardware in self._columns.hardware_list[len(self._ranges) :]:
            self._ranges.append(self.tables.range(hardware))
        worst, best = zip(*self._ranges, (0.0, 0.0), strict=True)
        return np.array(worst), np.array(best)
