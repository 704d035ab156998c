"""What a plugin is: a name and one method, called once a cycle with whole columns.

A plugin is stateless or owns its state; it never changes the view. Its answers are checked, so a
wrong shape is an error that names the plugin instead of a wrong placement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scheduler.engine.arrays import BoolArray, FloatArray
from scheduler.engine.profiles import Profile
from scheduler.engine.request import PodRequest
from scheduler.engine.sets import SetChoice
from scheduler.engine.view import View
from scheduler.errors import PluginError, ProfileError


class Plugin(Protocol):
    """What all plugins have."""

    name: str


@runtime_checkable
class PreFilter(Protocol):
    """Looks at the pod alone, before any node."""

    name: str

    def pre_filter(self, request: PodRequest) -> str | None:
        """Return why no node can ever take this pod (a text of the pod alone), or None."""


@runtime_checkable
class Filter(Protocol):
    """Says which nodes will do.

    `reason` is its one constant text: it must not name nodes or count anything, because
    kube-scheduler spins on a refusal whose text changes. `busy` tells that a refusal may pass
    when pods go.
    """

    name: str
    reason: str
    busy: bool

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Return True for each candidate that passes."""


@runtime_checkable
class Score(Protocol):
    """Rates nodes. Without `normalize` the raw scores must lie in 0 to 1; higher is better."""

    name: str

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return one finite number a candidate, in the plugin's own unit."""


@runtime_checkable
class Normalize(Protocol):
    """A Score plugin with a unit of its own."""

    name: str

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:
        """Return the raw scores on the scale 0 (worst) to 1 (best)."""


@runtime_checkable
class Reserve(Protocol):
    """Picks what is claimed on the node that won."""

    name: str

    def reserve(self, view: View, place: int, request: PodRequest) -> SetChoice | None:
        """Return the set for the pod on the candidate at `place`, None if there is none."""


class Scorer(NamedTuple):
    """A Score plugin, and its Normalize half if it has one."""

    plugin: Score
    normalizer: Normalize | None


class Framework:
    """The plugins of a scheduler, by extension point; filters run in their order.

    `stock_filters` repeat what kube-scheduler's own filters have seen to for the candidates that
    it sends; they run for candidates of other origin.
    """

    def __init__(
        self,
        *,
        pre_filters: tuple[PreFilter, ...],
        filters: tuple[Filter, ...],
        scores: tuple[Score, ...],
        reserve: Reserve,
        stock_filters: tuple[Filter, ...] = (),
    ) -> None:
        self.pre_filters = pre_filters
        self.filters = filters
        self.stock_filters = stock_filters
        self.scores: Mapping[str, Scorer] = {
            # Found out once: asking a protocol costs more than most plugins' work.
            plugin.name: Scorer(plugin, plugin if isinstance(plugin, Normalize) else None)
            for plugin in scores
        }
        self.reserve = reserve
        self.guest_reserve: Reserve | None = None
        self.guests: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The names of all plugins."""
        plugins: tuple[Plugin, ...] = (
            *self.pre_filters,
            *self.filters,
            *self.stock_filters,
            self.reserve,
        )
        return frozenset(self.scores) | {plugin.name for plugin in plugins}

    def extended(self, guests: Sequence[Plugin]) -> Framework:
        """Return this framework with plugins that the user brought, checked before.

        Each takes part at every extension point whose method it has: its filters run after the
        built-in ones, its scores where a profile weighs them, its reserve before the built-in one.
        """
        both = Framework(
            pre_filters=(*self.pre_filters, *(g for g in guests if isinstance(g, PreFilter))),
            filters=(*self.filters, *(g for g in guests if isinstance(g, Filter))),
            stock_filters=self.stock_filters,
            scores=(
                *(scorer.plugin for scorer in self.scores.values()),
                *(g for g in guests if isinstance(g, Score)),
            ),
            reserve=self.reserve,
        )
        both.guest_reserve = next((g for g in guests if isinstance(g, Reserve)), None)
        both.guests = frozenset(guest.name for guest in guests)
        return both

    def check(self, profile: Profile) -> Profile:
        """Return the profile; raises ProfileError if it names a plugin that is not there."""
        for name, weight in profile.weights:
            if name not in self.scores:
                known = ", ".join(sorted(self.scores))
                raise ProfileError(profile.name, f"no score plugin {name!r}; there are {known}")
            if not 0 <= weight < float("inf"):
                raise ProfileError(profile.name, f"weight of {name!r} is {weight}")
        if not sum(weight for _, weight in profile.weights) > 0:
            raise ProfileError(profile.name, "its weights sum up to nothing")
        return profile


def run_filter(plugin: Filter, view: View, request: PodRequest) -> BoolArray:
    """Ask a filter, and check that it answered with one truth value a candidate."""
    answer = np.asarray(plugin.filter(view, request))
    if answer.shape != (len(view),) or answer.dtype != np.bool_:
        raise PluginError(plugin.name, _shape("filter", answer, view, "bool"))
    return answer


def run_score(scorer: Scorer, view: View, request: PodRequest) -> tuple[FloatArray, FloatArray]:
    """Ask a score plugin; returns raw and normalised scores, both checked."""
    plugin = scorer.plugin
    raw = np.asarray(plugin.score(view, request))
    if raw.shape != (len(view),) or raw.dtype.kind not in "fiu":
        raise PluginError(plugin.name, _shape("score", raw, view, "number"))
    if not np.isfinite(raw).all():
        raise PluginError(plugin.name, "score returned a number that is not finite")
    raw = raw.astype(np.float64, copy=False)
    if scorer.normalizer is None:
        scaled = raw
    else:
        scaled = np.asarray(scorer.normalizer.normalize(view, raw))
        if scaled.shape != raw.shape or scaled.dtype.kind != "f":
            raise PluginError(plugin.name, _shape("normalize", scaled, view, "float"))
    # A hair beyond the scale is rounding, more is a mistake; NaN compares false.
    if len(view) and not (scaled.min() >= -1e-9 and scaled.max() <= 1 + 1e-9):
        raise PluginError(plugin.name, "a normalised score is not between 0 and 1")
    return raw, scaled.astype(np.float64, copy=False)


def run_pre_filter(plugin: PreFilter, request: PodRequest) -> str | None:
    """Ask a pre-filter, and check that it answered with a reason or None."""
    answer: object = plugin.pre_filter(request)
    if answer is None or (isinstance(answer, str) and answer):
        return answer
    raise PluginError(plugin.name, f"pre_filter returned {answer!r:.60}, wanted a text or None")


def run_reserve(plugin: Reserve, view: View, place: int, request: PodRequest) -> SetChoice | None:
    """Ask a guest for a set, and check that it is one that the pod may have; None passes."""
    choice: object = plugin.reserve(view, place, request)
    if choice is None:
        return None
    if not isinstance(choice, SetChoice):
        raise PluginError(plugin.name, f"reserve returned a {type(choice).__name__}")
    demand = request.demand
    fitting = view.fitting(place, demand)
    if choice.members.bit_count() != demand.count or choice.members & ~fitting:
        raise PluginError(plugin.name, f"reserve chose {choice.members:#x}, free are {fitting:#x}")
    if choice.uuids != view.uuids(place, choice.members):
        raise PluginError(plugin.name, "reserve named other GPUs than it chose")
    return choice


def _shape(method: str, answer: NDArray[Any], view: View, wanted: str) -> str:
    return (
        f"{method} returned shape {answer.shape} of {answer.dtype}, "
        f"wanted ({len(view)},) of {wanted}"
    )
