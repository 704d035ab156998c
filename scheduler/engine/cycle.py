"""One decision: filter, score, normalise, weigh, shortlist. Deterministic in its arguments."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.decision import Decision, Option, PluginScores, Refusal
from scheduler.engine.fence import Fence, Passage
from scheduler.engine.framework import (
    Framework,
    run_filter,
    run_pre_filter,
    run_reserve,
    run_score,
)
from scheduler.engine.profiles import Profile
from scheduler.engine.request import PodRequest
from scheduler.engine.sets import SetChoice
from scheduler.engine.view import View
from scheduler.errors import PluginError

EQUAL: Final = 1e-9
"""Totals nearer than this are a tie: sums of the same parts in floating point."""

_NONE: Final[IntArray] = np.zeros(0, np.int64)


def schedule(
    framework: Framework,
    view: View,
    request: PodRequest,
    profile: Profile,
    *,
    at: float,
    shortlist: int = 3,
    vetted: bool = True,
    fence: Fence | None = None,
) -> Decision:
    """Decide where a pod goes. `at` is the time in seconds, for the record only.

    `vetted` candidates have passed kube-scheduler's own filters; others go through ours too.
    What a plugin may do wrong, and what comes of it, see `scheduler.engine.fence`. Raises
    PluginError if a built-in filter or the choice of the set broke its contract.
    """
    view = view.under(profile.policy)
    passage = (fence or Fence(framework.guests)).enter(at)
    for pre_filter in framework.pre_filters:
        reason = passage.call(
            pre_filter.name,
            "pre_filter",
            partial(run_pre_filter, pre_filter, request),
            fenced=passage.guest(pre_filter.name),
        )
        if reason is not None:
            everyone = np.arange(len(view))
            refusal = Refusal(pre_filter.name, reason, busy=False, places=everyone)
            return _refused(view, request, profile, passage, at=at, refusals=(refusal,))
    refusals: list[Refusal] = []
    accepted = np.arange(len(view))
    passing = view
    for plugin in (*framework.filters, *(() if vetted else framework.stock_filters)):
        passes = passage.call(
            plugin.name,
            "filter",
            partial(run_filter, plugin, passing, request),
            fenced=passage.guest(plugin.name),
        )
        if passes is None or passes.all():
            continue
        places = accepted[~passes]
        refusals.append(Refusal(plugin.name, plugin.reason, plugin.busy, places))
        kept = np.flatnonzero(passes)
        accepted = accepted[kept]
        passing = passing.select(kept)
        if not len(accepted):
            could = _could_preempt(view, request, refusals)
            return _refused(
                view,
                request,
                profile,
                passage,
                at=at,
                refusals=tuple(refusals),
                could_preempt=could,
            )
    if not len(accepted):
        return _refused(view, request, profile, passage, at=at, refusals=())
    scores = _rate(framework, passing, request, profile, passage)
    totals = np.zeros(len(passing))
    for scored in scores:
        totals += scored.weighted
    # A node of unknown topology stands behind every other: nothing of ours is known to help there.
    if request.demand.count:
        totals[~passing.annotated] = -1.0
    options = tuple(
        Option(
            passing.name(place),
            float(totals[place]),
            _choose(framework, passing, place, request, passage),
        )
        for place in _best_places(totals, passing.rank, profile.tolerance, shortlist)
    )
    return Decision(
        request=request,
        profile=profile.name,
        at=at,
        candidates=view.names,
        unknown=view.unknown,
        refusals=tuple(refusals),
        could_preempt=_NONE,
        accepted=accepted,
        scores=scores,
        totals=totals,
        shortlist=options,
        faults=tuple(passage.faults),
        seconds=passage.seconds,
        forecast=view.outlook.forecast(),
        rows=view.rows,
        roster=view.roster,
    )


def _rate(
    framework: Framework, view: View, request: PodRequest, profile: Profile, passage: Passage
) -> tuple[PluginScores, ...]:
    whole = sum(weight for _, weight in profile.weights)
    rated = []
    for name, weight in profile.weights:
        if weight:
            work = partial(run_score, framework.scores[name], view, request)
            answer = passage.call(name, "score", work, fenced=True)
            if answer is not None:
                rated.append(PluginScores(name, weight / whole, *answer))
    return tuple(rated)


def _best_places(totals: FloatArray, rank: IntArray, tolerance: float, count: int) -> list[int]:
    """Return the best place, and up to `count` - 1 more within the tolerance; ties by name."""
    best = float(totals.max())
    near = np.flatnonzero(totals >= best - max(tolerance, EQUAL))
    if best >= 0:
        near = near[totals[near] >= 0]
    chosen: list[int] = []
    while len(chosen) < count and len(near):
        top = near[totals[near] >= totals[near].max() - EQUAL]
        place = int(top[rank[top].argmin()])
        chosen.append(place)
        near = near[near != place]
    return chosen


def _choose(
    framework: Framework, view: View, place: int, request: PodRequest, passage: Passage
) -> SetChoice:
    """Return the set on a candidate: a guest's if it has one that the pod may have, or ours."""
    choice: SetChoice | None = None
    guest = framework.guest_reserve
    if guest is not None and view.annotated[place] and request.demand.count:
        work = partial(run_reserve, guest, view, place, request)
        choice = passage.call(guest.name, "reserve", work, fenced=True)
    if choice is None:
        choice = framework.reserve.reserve(view, place, request)
    if choice is None:
        raise PluginError(framework.reserve.name, f"no set on {view.name(place)}, which passed")
    return choice


def _could_preempt(view: View, request: PodRequest, refusals: list[Refusal]) -> IntArray:
    """Return the refused places that would do if pods of lower priority were gone."""
    if not request.preempts:
        return _NONE
    busy = [refusal.places for refusal in refusals if refusal.busy]
    if not busy:
        return _NONE
    places = np.concatenate(busy)
    helps = view.lowest_priority[places] < request.priority
    return places[helps & (view.healthy[places] >= request.demand.count)]


def _refused(
    view: View,
    request: PodRequest,
    profile: Profile,
    passage: Passage,
    *,
    at: float,
    refusals: tuple[Refusal, ...],
    could_preempt: IntArray = _NONE,
) -> Decision:
    return Decision(
        request=request,
        profile=profile.name,
        at=at,
        candidates=view.names,
        unknown=view.unknown,
        refusals=refusals,
        could_preempt=could_preempt,
        accepted=_NONE,
        scores=(),
        totals=np.zeros(0),
        shortlist=(),
        faults=tuple(passage.faults),
        seconds=passage.seconds,
        forecast=view.outlook.forecast(),
        rows=view.rows,
        roster=view.roster,
    )
