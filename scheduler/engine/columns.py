"""Nodes as numpy columns: one row a node, one O(1) write an event, one take a cycle.

Equal hardware is interned (`hardware`), and so is each pair of hardware and free set (`state`):
whatever is worked out about a free set is worked out once and then looked up by state number.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.engine.arrays import IntArray
from topology.gpuset import EMPTY, GpuSet, size
from topology.model import NodeTopology, TopologyClass, classify

UNKNOWN: Final = -1
"""The hardware and state number of a node whose topology is not known."""

NO_PRIORITY: Final = np.iinfo(np.int64).max
"""The lowest priority on a node that runs no pods with GPUs."""

STATES_KEPT: Final = 1 << 16
"""More interned states than this, and those that no node is in any more are forgotten."""


class Hardware(msgspec.Struct, frozen=True):
    """What two nodes must share to be treated alike: the links, and what each GPU is."""

    links: TopologyClass
    models: tuple[str, ...]
    memory_mib: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many GPUs."""
        return len(self.models)


def hardware_of(topology: NodeTopology) -> Hardware:
    """Return what remains of a node's topology when names are removed."""
    return Hardware(
        links=classify(topology),
        models=tuple(gpu.model for gpu in topology.gpus),
        memory_mib=tuple(gpu.memory_mib for gpu in topology.gpus),
    )


class NodeFacts(msgspec.Struct, frozen=True):
    """What is known of a node, claims apart.

    `uuids` name the GPUs by position; with `hardware` None nothing is known of them and the sets
    are empty. `occupied` GPUs are really allocated, or promised to pods that are bound. A node
    `held_back` takes no pods with GPUs. `lowest_priority` is that of its pods with GPUs.
    """

    hardware: Hardware | None = None
    uuids: tuple[str, ...] = ()
    healthy: GpuSet = EMPTY
    occupied: GpuSet = EMPTY
    held_back: bool = False
    lowest_priority: int = NO_PRIORITY

    def set_of(self, uuids: tuple[str, ...]) -> GpuSet:
        """Return the set of those uuids that the node has; others are left out."""
        mask = 0
        for uuid in uuids:
            if uuid in self.uuids:
                mask |= 1 << self.uuids.index(uuid)
        return GpuSet(mask)


class Columns:
    """The table. Arrays grow by doubling; rows of removed nodes are used again."""

    def __init__(self, states_kept: int = STATES_KEPT) -> None:
        self._states_kept = states_kept
        self.rows: dict[str, int] = {}
        self.names: list[str] = []
        self.facts: list[NodeFacts] = []
        self.hardware_list: list[Hardware] = []
        self.state_hardware: list[int] = []
        self.state_free: list[GpuSet] = []
        self.epoch = 0
        self._unused: list[int] = []
        self._hardware_ids: dict[Hardware, int] = {}
        self._state_ids: dict[tuple[int, GpuSet], int] = {}
        self._ranks: IntArray | None = None
        self._allot(64)

    def _allot(self, capacity: int) -> None:
        self.hardware = np.full(capacity, UNKNOWN, np.int64)
        self.state = np.full(capacity, UNKNOWN, np.int64)
        self.gpus = np.zeros(capacity, np.int64)
        self.healthy = np.zeros(capacity, np.int64)
        self.free = np.zeros(capacity, np.int64)
        self.held_back = np.zeros(capacity, np.bool_)
        self.lowest_priority = np.full(capacity, NO_PRIORITY, np.int64)

    def _grow(self) -> None:
        old: list[NDArray[np.int64] | NDArray[np.bool_]] = list(self._arrays())
        self._allot(2 * len(self.hardware))
        for new, values in zip(self._arrays(), old, strict=True):
            new[: len(values)] = values

    def _arrays(self) -> tuple[NDArray[np.int64] | NDArray[np.bool_], ...]:
        return (
            self.hardware,
            self.state,
            self.gpus,
            self.healthy,
            self.free,
            self.held_back,
            self.lowest_priority,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, name: str, facts: NodeFacts, claimed: GpuSet) -> bool:
        """Write a node's row; returns whether anything in it is new."""
        row = self.rows.get(name)
        if row is None:
            row = self._new_row(name)
        elif self.facts[row] == facts and self._free_of(facts, claimed) == self.free_set(row):
            return False
        free = self._free_of(facts, claimed)
        if facts.hardware is None:
            hardware = state = UNKNOWN
        else:
            hardware = self._intern_hardware(facts.hardware)
            state = self._intern_state(hardware, free)
        self.facts[row] = facts
        self.hardware[row] = hardware
        self.state[row] = state
        self.gpus[row] = len(facts.uuids)
        self.healthy[row] = size(facts.healthy)
        self.free[row] = size(free)
        self.held_back[row] = facts.held_back
        self.lowest_priority[row] = facts.lowest_priority
        return True

    @staticmethod
    def _free_of(facts: NodeFacts, claimed: GpuSet) -> GpuSet:
        return GpuSet(facts.healthy & ~(facts.occupied | claimed))

    def _new_row(self, name: str) -> int:
        if self._unused:
            row = self._unused.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            self.names.append(name)
            self.facts.append(NodeFacts())
            if row == len(self.hardware):
                self._grow()
        self.rows[name] = row
        self._ranks = None
        return row

    def drop(self, name: str) -> bool:
        """Forget a node; returns whether it was there."""
        row = self.rows.pop(name, None)
        if row is None:
            return False
        self.names[row] = ""
        self.facts[row] = NodeFacts()
        self.hardware[row] = self.state[row] = UNKNOWN
        self.gpus[row] = self.healthy[row] = self.free[row] = 0
        self._unused.append(row)
        self._ranks = None
        return True

    def free_set(self, row: int) -> GpuSet:
        """Return the free set of a row; empty where the topology is unknown."""
        state = int(self.state[row])
        return EMPTY if state == UNKNOWN else self.state_free[state]

    def ranks(self) -> IntArray:
        """Return, by row, the place of its node in the order of names: the rule for ties."""
        if self._ranks is None:
            ranks = np.zeros(len(self.names), np.int64)
            for rank, name in enumerate(sorted(self.rows)):
                ranks[self.rows[name]] = rank
            self._ranks = ranks
        return self._ranks

    def _intern_hardware(self, hardware: Hardware) -> int:
        known = self._hardware_ids.get(hardware)
        if known is None:
            known = self._hardware_ids[hardware] = len(self.hardware_list)
            self.hardware_list.append(hardware)
        return known

    def _intern_state(self, hardware: int, free: GpuSet) -> int:
        known = self._state_ids.get((hardware, free))
        if known is None:
            if len(self.state_free) >= max(self._states_kept, 2 * len(self.names)):
                self._forget_states()
            known = self._state_ids[hardware, free] = len(self.state_free)
            self.state_hardware.append(hardware)
            self.state_free.append(free)
        return known

    def _forget_states(self) -> None:
        """Give new numbers to the states in use; a new epoch tells the caches."""
        live = [
            (row, (self.state_hardware[int(self.state[row])], self.free_set(row)))
            for row in self.rows.values()
            if self.state[row] != UNKNOWN
        ]
        self._state_ids = {}
        self.state_hardware = []
        self.state_free = []
        for row, key in live:
            number = self._state_ids.setdefault(key, len(self._state_ids))
            if number == len(self.state_free):
                self.state_hardware.append(key[0])
                self.state_free.append(key[1])
            self.state[row] = number
        self.epoch += 1
