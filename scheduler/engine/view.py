"""What one cycle sees: the candidates' columns, copied when first looked at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import repeat
from operator import itemgetter
from typing import Self

import numpy as np

from scheduler.engine.arrays import BoolArray, FloatArray, IntArray
from scheduler.engine.columns import UNKNOWN, Columns
from scheduler.engine.request import Demand
from scheduler.engine.sets import UNKNOWN_SET, SetChoice, SetTables
from topology.gpuset import GpuSet, positions
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


class View:
    """Columns of the candidates, in their order; `unknown` are those that the inventory lacks.

    All arrays have one entry a candidate. Counts are of GPUs.
    """

    def __init__(
        self, columns: Columns, sets: SetTables, names: Sequence[str], policy: Policy = TRAINING
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

    def __len__(self) -> int:
        return len(self.rows)

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
        return self._columns.hardware.take(self.rows)

    @cached_property
    def state(self) -> IntArray:
        """Numbers of hardware and free set together."""
        return self._columns.state.take(self.rows)

    @cached_property
    def gpus(self) -> IntArray:
        """All GPUs."""
        return self._columns.gpus.take(self.rows)

    @cached_property
    def healthy(self) -> IntArray:
        """Healthy GPUs."""
        return self._columns.healthy.take(self.rows)

    @cached_property
    def free(self) -> IntArray:
        """GPUs that can be given out now."""
        return self._columns.free.take(self.rows)

    @cached_property
    def held_back(self) -> BoolArray:
        """Whether the node takes no pods with GPUs for now."""
        return self._columns.held_back.take(self.rows)

    @cached_property
    def lowest_priority(self) -> IntArray:
        """The lowest priority among the node's pods with GPUs."""
        return self._columns.lowest_priority.take(self.rows)

    @cached_property
    def rank(self) -> IntArray:
        """Places in the order of names: the lower wins a tie."""
        return self._columns.ranks().take(self.rows)

    @cached_property
    def ceiling(self) -> FloatArray:
        """The best bus bandwidth that any set of the node's GPUs has when all are free, in GB/s."""
        return self._sets.ceilings().take(self.hardware)

    def allowed(self, demand: Demand) -> IntArray:
        """Return how many GPUs are of a model and memory that the demand takes."""
        return self._sets.best(demand, self.policy).allowed_counts().take(self.hardware)

    def quality(self, demand: Demand) -> FloatArray:
        """Return the bus bandwidth of the best obtainable sets in GB/s, NaN where there is none."""
        return self._look_up(demand)[0]

    def loss(self, demand: Demand) -> FloatArray:
        """Return what taking those sets costs the rest (0 to 1), NaN where there is none."""
        return self._look_up(demand)[1]

    def _look_up(self, demand: Demand) -> tuple[FloatArray, FloatArray]:
        known = self._answers.get(demand)
        if known is None:
            best = self._sets.best(demand, self.policy)
            if self.annotated.all():
                best.fill(self.state)
                known = best.quality(self.state), best.loss(self.state)
            else:
                places = np.flatnonzero(self.annotated)
                states = self.state[places]
                best.fill(states)
                known = np.full(len(self), np.nan), np.full(len(self), np.nan)
                known[0][places] = best.quality(states)
                known[1][places] = best.loss(states)
            self._answers[demand] = known
        return known

    @cached_property
    def _answers(self) -> dict[Demand, tuple[FloatArray, FloatArray]]:
        return {}

    def choice(self, place: int, demand: Demand) -> SetChoice | None:
        """Return the set on one candidate: UNKNOWN_SET without topology, None if none will do."""
        state = int(self.state[place])
        if state == UNKNOWN:
            return UNKNOWN_SET
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

    def uuids(self, place: int, members: GpuSet) -> tuple[str, ...]:
        """Return the uuids of a set on one candidate."""
        named = self._columns.facts[int(self.rows[place])].uuids
        return tuple(named[position] for position in positions(members))
