"""What one cycle sees: the candidates' columns, copied when first looked at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import repeat
from operator import itemgetter
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.engine.arrays import BoolArray, FloatArray, IntArray
from scheduler.engine.columns import UNKNOWN, Columns
from scheduler.engine.outlook import Outlook
from scheduler.engine.request import WHOLE_GPU_MILLI, Demand, PodRequest
from scheduler.engine.sets import UNKNOWN_SET, Field, SetChoice, SetTables
from topology.gpuset import GpuSet, gpuset, positions
from topology.profiles import TRAINING
from topology.profiles import Profile as Policy


def _find_rows(rows: dict[str, int], names: Sequence[str]) -> IntArray:
    """Return the rows of these nodes, UNKNOWN for those that have none."""
    if len(names) > 1:
        try:
            # One call for all names: half the time of one call each, and it is half of a cycle.
            return np.fromiter(itemgetter(*names)(rows), np.int64, count=len(names))
        except KeyError:
            pass
    return np.fromiter(map(rows.get, names, repeat(UNKNOWN)), np.int64, count=len(names))


_Array = TypeVar("_Array", bound=NDArray[Any])


def _keep(array: _Array) -> _Array:
    """Make an array read-only: all plugins of a cycle look at the same one."""
    array.setflags(write=False)
    return array


class View:
    """Columns of the candidates, in their order; `unknown` are those that the inventory lacks.

    All arrays have one entry a candidate. Counts are of GPUs.
    """

    def __init__(
        self,
        columns: Columns,
        sets: SetTables,
        outlook: Outlook,
        names: Sequence[str],
        policy: Policy = TRAINING,
    ) -> None:
        found = _find_rows(columns.rows, names)
        known = found != UNKNOWN
        self.unknown: tuple[str, ...] = ()
        if not known.all():
            self.unknown = tuple(names[place] for place in np.flatnonzero(~known).tolist())
            found = found[known]
            names = [columns.names[row] for row in found.tolist()]
        self._names: Sequence[str] | None = names
        self.rows: IntArray = found
        self.policy = policy
        self._columns = columns
        self._sets = sets
        self.outlook = outlook

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def roster(self) -> int:
        """Which nodes the rows stand for: another number when one has come or gone."""
        return self._columns.roster

    def under(self, policy: Policy) -> Self:
        """Return the same candidates with another rule for choosing a set."""
        return self._like(self.rows, policy, self._names)

    def select(self, chosen: IntArray) -> Self:
        """Return the view of these candidates, given by their places in this one."""
        return self._like(self.rows[chosen], self.policy, None)

    def _like(self, rows: IntArray, policy: Policy, names: Sequence[str] | None) -> Self:
        view = self.__class__.__new__(self.__class__)
        view.rows, view.policy, view.unknown = rows, policy, self.unknown
        view._names = names  # noqa: SLF001 -- of our own kind
        view._columns, view._sets = self._columns, self._sets  # noqa: SLF001 -- as above
        view.outlook = self.outlook
        return view

    @property
    def names(self) -> Sequence[str]:
        """The nodes' names. Listing them is the dearest thing a view does: `name` gives one."""
        if self._names is None:
            names = self._columns.names
            self._names = [names[row] for row in self.rows.tolist()]
        return self._names

    def name(self, place: int) -> str:
        """Return one candidate's name."""
        return self._columns.names[int(self.rows[place])]

    @cached_property
    def annotated(self) -> BoolArray:
        """Whether the node's topology is known."""
        known: BoolArray = self.hardware != UNKNOWN
        return known

    @cached_property
    def hardware(self) -> IntArray:
        """Hardware numbers, UNKNOWN where there is no topology."""
        return _keep(self._columns.hardware.take(self.rows))

    @cached_property
    def state(self) -> IntArray:
        """Numbers of hardware and free set together."""
        return _keep(self._columns.state.take(self.rows))

    @cached_property
    def gpus(self) -> IntArray:
        """All GPUs."""
        return _keep(self._columns.gpus.take(self.rows))

    @cached_property
    def healthy(self) -> IntArray:
        """Healthy GPUs."""
        return _keep(self._columns.healthy.take(self.rows))

    @cached_property
    def free(self) -> IntArray:
        """GPUs that can be given out now."""
        return _keep(self._columns.free.take(self.rows))

    @cached_property
    def share(self) -> IntArray:
        """What is free of each GPU in thousandths, a column a GPU; 0 where there is none."""
        return _keep(self._columns.share.take(self.rows, axis=0))

    @cached_property
    def idle(self) -> IntArray:
        """What is free of all GPUs together, in thousandths of one."""
        return _keep(self._columns.idle.take(self.rows))

    @cached_property
    def largest(self) -> IntArray:
        """What is free of the GPU that has most, in thousandths."""
        return _keep(self._columns.largest.take(self.rows))

    @cached_property
    def cpu(self) -> IntArray:
        """Free CPU in thousandths of a core."""
        return _keep(self._columns.cpu.take(self.rows))

    @cached_property
    def cpu_capacity(self) -> IntArray:
        """All CPU in thousandths of a core, 0 where it is not known."""
        return _keep(self._columns.cpu_capacity.take(self.rows))

    @cached_property
    def memory(self) -> IntArray:
        """Free memory in MiB."""
        return _keep(self._columns.memory.take(self.rows))

    @cached_property
    def memory_capacity(self) -> IntArray:
        """All memory in MiB, 0 where it is not known."""
        return _keep(self._columns.memory_capacity.take(self.rows))

    @cached_property
    def pods(self) -> IntArray:
        """How many more pods the node takes."""
        return _keep(self._columns.pods.take(self.rows))

    @cached_property
    def load(self) -> FloatArray:
        """How busy the node is, 0 to 1, NaN where that is not known or out of date."""
        return _keep(self._columns.load.take(self.rows))

    @cached_property
    def held_back(self) -> BoolArray:
        """Whether the node takes no pods with GPUs for now."""
        return _keep(self._columns.held_back.take(self.rows))

    @cached_property
    def lowest_priority(self) -> IntArray:
        """The lowest priority among the node's pods with GPUs."""
        return _keep(self._columns.lowest_priority.take(self.rows))

    @cached_property
    def rank(self) -> IntArray:
        """Places in the order of names: the lower wins a tie."""
        return self._columns.ranks().take(self.rows)

    @cached_property
    def ceiling(self) -> FloatArray:
        """The best bus bandwidth that any set of the node's GPUs has when all are free, in GB/s."""
        return self._sets.ranges()[1].take(self.hardware)

    @cached_property
    def floor(self) -> FloatArray:
        """The worst bus bandwidth that any set of the node's GPUs has, in GB/s."""
        return self._sets.ranges()[0].take(self.hardware)

    def pressure(self) -> FloatArray:
        """Return the part of the node's kind of GPUs that pods bound to models would take."""
        return self.outlook.pressure(self.rows)

    def gains(self, request: PodRequest) -> FloatArray:
        """Return by how many thousandths of a GPU the pod lessens the node's waste."""
        return self.outlook.gains(request, self.rows)

    def device_shares(self, request: PodRequest) -> IntArray:
        """Return what is free of the GPU that a pod with a share would get, in thousandths."""
        return self.outlook.device_shares(request, self.rows)

    def sharable(self, demand: Demand) -> BoolArray:
        """Return whether some GPU that the demand takes has its share free."""
        most = self.largest
        if demand.models or demand.memory_mib:
            allowed = self.outlook.allowed(demand)[self.hardware]
            most = np.where(allowed, self.share, 0).max(axis=1)
        fits: BoolArray = most >= demand.share_milli
        return fits

    def fitting(self, place: int, demand: Demand) -> GpuSet:
        """Return the GPUs of one candidate that the demand takes and that have its share free."""
        fits = self._columns.share[int(self.rows[place])] >= demand.share_milli
        fits &= self.outlook.allowed(demand)[int(self.hardware[place])]
        return gpuset(np.flatnonzero(fits).tolist())

    def allowed(self, demand: Demand) -> IntArray:
        """Return how many GPUs are of a model and memory that the demand takes."""
        return self._sets.best(demand, self.policy).allowed_counts().take(self.hardware)

    def quality(self, demand: Demand) -> FloatArray:
        """Return the bus bandwidth of the best obtainable sets in GB/s, NaN where there is none.

        Pods that want no GPU, or a share of one, have no links: 0.
        """
        if not demand.count or demand.shares:
            return np.zeros(len(self))
        return self._look_up(demand, Field.QUALITY)

    def loss(self, request: PodRequest) -> FloatArray:
        """Return what taking those sets costs the rest (0 to 1), NaN where there is none.

        A share costs what its GPU costs if that was idle, else nothing.
        """
        demand = request.demand
        if not demand.count:
            return np.zeros(len(self))
        if not demand.shares:
            return self._look_up(demand, Field.LOSS)
        one = msgspec.structs.replace(demand, share_milli=WHOLE_GPU_MILLI)
        idle = self.device_shares(request) == WHOLE_GPU_MILLI
        loss: FloatArray = np.where(idle, self._look_up(one, Field.LOSS), 0.0)
        return loss

    def numa_nodes(self, demand: Demand) -> FloatArray:
        """Return how many NUMA nodes those sets lie on, NaN where there is none.

        Pods that want no GPU, or a share of one, lie on one.
        """
        if not demand.count or demand.shares:
            return np.ones(len(self))
        return self._look_up(demand, Field.NUMA)

    def nic_level(self, demand: Demand) -> FloatArray:
        """Return the mean level of those sets' GPUs to their nearest NIC, NaN if there is none."""
        if not demand.count or demand.shares:
            return np.full(len(self), np.nan)
        return self._look_up(demand, Field.NIC)

    def _look_up(self, demand: Demand, field: Field) -> FloatArray:
        known = self._answers.get((demand, field))
        if known is None:
            best = self._sets.best(demand, self.policy)
            if self.annotated.all():
                best.fill(self.state)
                known = best.values(field, self.state)
            else:
                places = np.flatnonzero(self.annotated)
                states = self.state[places]
                best.fill(states)
                known = np.full(len(self), np.nan)
                known[places] = best.values(field, states)
            self._answers[demand, field] = known
        return known

    @cached_property
    def _answers(self) -> dict[tuple[Demand, Field], FloatArray]:
        return {}

    def choice(self, place: int, request: PodRequest) -> SetChoice | None:
        """Return the set on one candidate: UNKNOWN_SET without topology, None if none will do."""
        state, demand = int(self.state[place]), request.demand
        if state == UNKNOWN or not demand.count:
            return UNKNOWN_SET
        if demand.shares:
            return self._choose_shared(place, request)
        best = self._sets.best(demand, self.policy)
        best.fill(self.state[place : place + 1])
        choice = best.choice(state)
        if choice is None:
            return None
        return SetChoice(
            members=choice.members,
            uuids=self.uuids(place, choice.members),
            bus_bandwidth_gbs=choice.bus_bandwidth_gbs,
            loss=choice.loss,
            pair_score=choice.pair_score,
        )

    def _choose_shared(self, place: int, request: PodRequest) -> SetChoice | None:
        row = int(self.rows[place])
        gains = self.outlook.gains_by_device(request, row)
        most = gains.max()
        if most == -np.inf:
            return None
        share = self._columns.share[row]
        equals = np.flatnonzero(gains == most)
        members, loss = gpuset([int(equals[share[equals].argmin()])]), 0.0
        free = self._columns.free_set(row)
        if members & free:
            # Even the tightest is idle, so all of them are: the links decide.
            choice = self._sets.choose_one(row, gpuset(equals.tolist()), self.policy)
            members, loss = choice.members, choice.loss
        return SetChoice(members, self.uuids(place, members), 0.0, loss, 0)

    def uuids(self, place: int, members: GpuSet) -> tuple[str, ...]:
        """Return the uuids of a set on one candidate."""
        named = self._columns.facts[int(self.rows[place])].uuids
        return tuple(named[position] for position in positions(members))
