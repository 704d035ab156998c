"""Nodes as numpy columns: one row a node, one O(1) write an event, one take a cycle.

Equal hardware is interned (`hardware`), and so is each pair of hardware and free set (`state`):
whatever is worked out about a free set is worked out once and then looked up by state number.
`changed` holds, by row, the number of the last change to what scores depend on, so that whatever
is worked out by row is worked out again for the rows that changed alone. `roster` changes when
a node comes or goes, and rows stand for other nodes than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.engine.arrays import IntArray
from scheduler.engine.request import NOTHING, WHOLE_GPU_MILLI, Amounts
from topology.gpuset import EMPTY, GpuSet, size
from topology.model import NodeTopology, TopologyClass, classify

UNKNOWN: Final = -1
"""The hardware and state number of a node whose topology is not known."""

NO_PRIORITY: Final = np.iinfo(np.int64).max
"""The lowest priority on a node that runs no pods with GPUs."""

STATES_KEPT: Final = 1 << 16
"""More interned states than this, and those that no node is in any more are forgotten."""


Kind = frozenset[tuple[str, int]]
"""The (model, memory in MiB) of a node's GPUs: what demands on the model look at."""


class Hardware(msgspec.Struct, frozen=True):
    """What two nodes must share to be treated alike: the links, and what each GPU is."""

    links: TopologyClass
    models: tuple[str, ...]
    memory_mib: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many GPUs."""
        return len(self.models)

    @property
    def kind(self) -> Kind:
        """Which models and memories there are."""
        return frozenset(zip(self.models, self.memory_mib, strict=True))


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
    are empty. `occupied` GPUs are really allocated, or promised to pods that are bound. `used` is
    what pods that share GPUs have of each, in thousandths; empty where nobody shares. A node
    `held_back` takes no pods with GPUs. `lowest_priority` is that of its pods with GPUs.
    """

    hardware: Hardware | None = None
    uuids: tuple[str, ...] = ()
    healthy: GpuSet = EMPTY
    occupied: GpuSet = EMPTY
    used: tuple[int, ...] = ()
    held_back: bool = False
    lowest_priority: int = NO_PRIORITY

    def set_of(self, uuids: tuple[str, ...]) -> GpuSet:
        """Return the set of those uuids that the node has; others are left out."""
        mask = 0
        for uuid in uuids:
            if uuid in self.uuids:
                mask |= 1 << self.uuids.index(uuid)
        return GpuSet(mask)

    def free_shares(self, claims: Mapping[str, int] = {}) -> tuple[int, ...]:
        """Return what is free of each GPU in thousandths, once these claims by uuid are met."""
        usable = self.healthy & ~self.occupied
        if not self.used and not claims:
            return tuple(WHOLE_GPU_MILLI * (usable >> at & 1) for at in range(len(self.uuids)))
        used = self.used or (0,) * len(self.uuids)
        return tuple(
            max(WHOLE_GPU_MILLI - used[at] - claims.get(uuid, 0), 0) if usable >> at & 1 else 0
            for at, uuid in enumerate(self.uuids)
        )


class Room(msgspec.Struct, frozen=True):
    """A node's CPU, memory and places for pods: what it has, and what pods there ask for."""

    capacity: Amounts = NOTHING
    used: Amounts = NOTHING


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
        self.kinds: list[Kind] = []
        self.hardware_kind: list[int] = []
        self.epoch = 0
        self.fleet = 0
        self.roster = 0
        self.change = 0
        self._shares: list[tuple[int, ...]] = []
        self._kind_ids: dict[Kind, int] = {}
        self._unused: list[int] = []
        self._hardware_ids: dict[Hardware, int] = {}
        self._state_ids: dict[tuple[int, GpuSet], int] = {}
        self._ranks: IntArray | None = None
        self._allot(64)

    def _allot(self, capacity: int, width: int = 1) -> None:
        self.hardware = np.full(capacity, UNKNOWN, np.int64)
        self.state = np.full(capacity, UNKNOWN, np.int64)
        self.gpus = np.zeros(capacity, np.int64)
        self.healthy = np.zeros(capacity, np.int64)
        self.free = np.zeros(capacity, np.int64)
        self.held_back = np.zeros(capacity, np.bool_)
        self.lowest_priority = np.full(capacity, NO_PRIORITY, np.int64)
        self.share = np.zeros((capacity, width), np.int64)
        self.idle = np.zeros(capacity, np.int64)
        self.largest = np.zeros(capacity, np.int64)
        self.cpu = np.zeros(capacity, np.int64)
        self.cpu_capacity = np.zeros(capacity, np.int64)
        self.memory = np.zeros(capacity, np.int64)
        self.memory_capacity = np.zeros(capacity, np.int64)
        self.pods = np.zeros(capacity, np.int64)
        self.load = np.full(capacity, np.nan)
        self.changed = np.zeros(capacity, np.int64)

    def _resize(self, capacity: int, width: int) -> None:
        old = self._arrays()
        self._allot(capacity, width)
        for new, values in zip(self._arrays(), old, strict=True):
            new[tuple(slice(length) for length in values.shape)] = values

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return (
            self.hardware,
            self.state,
            self.gpus,
            self.healthy,
            self.free,
            self.held_back,
            self.lowest_priority,
            self.share,
            self.idle,
            self.largest,
            self.cpu,
            self.cpu_capacity,
            self.memory,
            self.memory_capacity,
            self.pods,
            self.load,
            self.changed,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def copy(self) -> Columns:
        """Return a twin that changes by itself: 0.5 ms at 5,000 nodes."""
        twin = Columns(self._states_kept)
        for name, value in vars(self).items():
            # What the containers hold are values.
            fresh = isinstance(value, (list, dict, np.ndarray))
            setattr(twin, name, value.copy() if fresh else value)
        return twin

    def put(self, name: str, facts: NodeFacts, shares: tuple[int, ...]) -> bool:
        """Write a node's row; returns whether anything in it is new.

        `shares` is what is free of each GPU in thousandths, claims counted.
        """
        row = self.rows.get(name)
        if row is None:
            row = self._new_row(name)
        elif self._shares[row] == shares and self.facts[row] == facts:
            return False
        free = EMPTY
        for position, share in enumerate(shares):
            free = GpuSet(free | (share == WHOLE_GPU_MILLI) << position)
        if facts.hardware is None:
            hardware = state = UNKNOWN
        else:
            hardware = self._intern_hardware(facts.hardware)
            state = self._intern_state(hardware, free)
        if len(shares) > self.share.shape[1]:
            self._resize(len(self.hardware), len(shares))
        if hardware != self.hardware[row] or len(facts.uuids) != self.gpus[row]:
            self.fleet += 1
        self.facts[row] = facts
        self._shares[row] = shares
        self.hardware[row] = hardware
        self.state[row] = state
        self.gpus[row] = len(facts.uuids)
        self.healthy[row] = size(facts.healthy)
        self.free[row] = size(free)
        self.held_back[row] = facts.held_back
        self.lowest_priority[row] = facts.lowest_priority
        self.share[row, : len(shares)] = shares
        self.share[row, len(shares) :] = 0
        self.idle[row] = sum(shares)
        self.largest[row] = max(shares, default=0)
        self._note(row)
        return True

    def put_room(self, name: str, capacity: Amounts, used: Amounts) -> bool:
        """Write what a known node has beside GPUs, and what is used of it, claims counted."""
        row = self.rows[name]
        amounts = (
            capacity.cpu_milli - used.cpu_milli,
            capacity.cpu_milli,
            capacity.memory_mib - used.memory_mib,
            capacity.memory_mib,
            capacity.pods - used.pods,
        )
        arrays = (self.cpu, self.cpu_capacity, self.memory, self.memory_capacity, self.pods)
        if all(
            array[row] == amount  # the usual event changes nothing of all this
            for array, amount in zip(arrays, amounts, strict=True)
        ):
            return False
        self.fleet += int(self.cpu_capacity[row]) != capacity.cpu_milli
        for array, amount in zip(arrays, amounts, strict=True):
            array[row] = amount
        self._note(row)
        return True

    def put_loads(self, loads: Mapping[str, float]) -> None:
        """Take the load of nodes, 0 to 1; those not named are of unknown load from now on."""
        self.load[:] = np.nan
        for name, load in loads.items():
            self.put_load(name, load)

    def put_load(self, name: str, load: float) -> None:
        """Take one node's load, NaN for unknown; nothing happens if there is no such node."""
        row = self.rows.get(name)
        if row is not None:
            self.load[row] = load

    def _note(self, row: int) -> None:
        self.change += 1
        self.changed[row] = self.change

    def _new_row(self, name: str) -> int:
        if self._unused:
            row = self._unused.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            self.names.append(name)
            self.facts.append(NodeFacts())
            self._shares.append(())
            if row == len(self.hardware):
                self._resize(2 * row, self.share.shape[1])
        self.rows[name] = row
        self._ranks = None
        self.fleet += 1
        self.roster += 1
        return row

    def drop(self, name: str) -> bool:
        """Forget a node; returns whether it was there."""
        row = self.rows.pop(name, None)
        if row is None:
            return False
        self.names[row] = ""
        self.facts[row] = NodeFacts()
        self._shares[row] = ()
        self.hardware[row] = self.state[row] = UNKNOWN
        self.gpus[row] = self.healthy[row] = self.free[row] = 0
        self.share[row] = 0
        self.idle[row] = self.largest[row] = 0
        self.cpu[row] = self.cpu_capacity[row] = 0
        self.memory[row] = self.memory_capacity[row] = self.pods[row] = 0
        self.load[row] = np.nan
        self.fleet += 1
        self.roster += 1
        self._note(row)
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
            kind = self._kind_ids.setdefault(hardware.kind, len(self.kinds))
            if kind == len(self.kinds):
                self.kinds.append(hardware.kind)
            self.hardware_kind.append(kind)
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
