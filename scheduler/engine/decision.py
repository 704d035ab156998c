"""The outcome of a cycle as a value: who was considered, why not, how rated, what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.fence import Fault
from scheduler.engine.request import PodRequest
from scheduler.engine.sets import SetChoice
from scheduler.engine.workload import Forecast

NO_ROWS: Final[IntArray] = np.zeros(0, np.int64)


class Refusal(msgspec.Struct, frozen=True):
    """One reason and the candidates that it refused, by their places.

    `by` names the plugin. `busy` tells that it may pass when pods go.
    """

    by: str
    reason: str
    busy: bool
    places: IntArray


class PluginScores(msgspec.Struct, frozen=True):
    """What one plugin gave each accepted candidate. `weight` is its share of the total, 0 to 1."""

    plugin: str
    weight: float
    raw: FloatArray
    normalised: FloatArray

    @property
    def weighted(self) -> FloatArray:
        """What it added to the total."""
        return self.normalised * self.weight


class Option(msgspec.Struct, frozen=True):
    """One accepted node: its total score (0 to 1) and the set that the pod would get."""

    node: str
    score: float
    choice: SetChoice


class Decision(msgspec.Struct, frozen=True):
    """Everything a cycle found out.

    `candidates` are the nodes considered, `accepted` the places of those that passed, in the
    order of `totals` and of each plugin's scores; `unknown` were asked for but are not in the
    inventory. `rows` are the candidates' rows in the columns, as long as those have this `roster`.
    `shortlist` holds the chosen node first, then those within the profile's
    tolerance; it is empty when nobody passed. `could_preempt` are refused places where evicting
    pods of lower priority could help. `at` is the time that the cycle was given. `faults` are the
    plugins that were left out, `seconds` what each plugin took where a stopwatch was given,
    `forecast` the workload that the nodes were judged against.
    """

    request: PodRequest
    profile: str
    at: float
    candidates: Sequence[str]
    unknown: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    could_preempt: IntArray
    accepted: IntArray
    scores: tuple[PluginScores, ...]
    totals: FloatArray
    shortlist: tuple[Option, ...]
    faults: tuple[Fault, ...] = ()
    seconds: dict[str, float] = {}
    forecast: Forecast = Forecast()
    rows: IntArray = NO_ROWS
    roster: int = -1

    @property
    def chosen(self) -> Option | None:
        """The best node, None if nobody passed."""
        return self.shortlist[0] if self.shortlist else None

    def refused(self) -> dict[str, str]:
        """Return each refused node with its reason."""
        return {
            self.candidates[place]: refusal.reason
            for refusal in self.refusals
            for place in refusal.places.tolist()
        }

    def busy(self) -> set[str]:
        """Return the nodes that may do when other pods go."""
        return {
            self.candidates[place]
            for refusal in self.refusals
            if refusal.busy
            for place in refusal.places.tolist()
        }

    def counts(self) -> Mapping[str, int]:
        """Return how many candidates each plugin refused."""
        return {refusal.by: len(refusal.places) for refusal in self.refusals}

    def top(self, count: int) -> list[tuple[str, float, dict[str, float]]]:
        """Return the best nodes: name, total, and what each plugin added to it."""
        order = np.argsort(-self.totals, kind="stable")[:count].tolist()
        return [
            (
                self.candidates[int(self.accepted[index])],
                float(self.totals[index]),
                {scores.plugin: float(scores.weighted[index]) for scores in self.scores},
            )
            for index in order
        ]
