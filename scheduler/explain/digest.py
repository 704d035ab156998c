"""A decision -> the value that is kept of it. Pure; a tenth of a millisecond at 1,000 nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.arrays import IntArray
from scheduler.engine.cluster import ClusterState
from scheduler.engine.cycle import EQUAL
from scheduler.engine.decision import Decision, Option, Refusal
from scheduler.engine.profiles import Profile
from scheduler.engine.request import WHOLE_GPU_MILLI
from scheduler.engine.sets import SetChoice
from scheduler.engine.workload import Forecast
from scheduler.explain.names import Ids, NameTable
from scheduler.explain.record import (
    ChosenSet,
    Held,
    MixLine,
    Refused,
    ScoreTable,
    Strategy,
    Verdict,
    Workload,
)
from scheduler.load.report import LoadReport
from topology.tables import Mix

TOP_KEPT: Final = 20
"""Best nodes whose scores stay when a verdict is thinned."""

STRATEGY_TOP_KEPT: Final = 5
"""Likewise, the best of each strategy."""

RUNNERS_UP: Final = 3
"""Nodes beside the answered ones whose sets are kept."""

HELD_KEPT: Final = 32
UNKNOWN_KEPT: Final = 64
CLASSES_KEPT: Final = 20


def digest(
    decision: Decision,
    cluster: ClusterState,
    profile: Profile,
    table: NameTable,
    *,
    at: float,
    workload: Workload | None = None,
    loads: tuple[LoadReport, ...] = (),
    seconds: Mapping[str, float] | None = None,
) -> Verdict:
    """Return what is kept of a decision that was just made over this cluster.

    `at` is in Unix seconds, `seconds` what its parts took. `workload` is the decision's, if it
    was described before.
    """
    if decision.roster == cluster.columns.roster:
        ids = table.ids_of_rows(cluster.columns, decision.rows)
    else:
        ids = table.ids(decision.candidates)
    uid = decision.request.uid
    options = tuple(_chosen(cluster, uid, option) for option in decision.shortlist)
    scores: ScoreTable | None = None
    runners_up: tuple[ChosenSet, ...] = ()
    if options:
        order = _best_first(decision)
        scores = _scores(decision, ids, order)
        runners_up = _runners_up(decision, cluster, profile, order)
    nodes = {one.node for one in (*options, *runners_up)} or _busy_nodes(decision, cluster)
    claims = cluster.claims.all()
    return Verdict(
        at=at,
        profile=decision.profile,
        tolerance=profile.tolerance,
        table=table,
        considered=len(decision.candidates),
        accepted=len(decision.accepted),
        nodes=table.pack(ids),
        unknown=decision.unknown[:UNKNOWN_KEPT],
        refusals=tuple(_refused(refusal, ids, table) for refusal in decision.refusals),
        could_preempt=len(decision.could_preempt),
        strategies=tuple(Strategy(one.plugin, one.weight) for one in decision.scores),
        scores=scores,
        complete=True,
        options=options,
        runners_up=runners_up,
        workload=workload or describe_workload(decision.forecast, cluster.sets.tables.mix),
        loads=loads,
        claims=sum(claim.uid != uid for claim in claims),
        held=tuple(
            Held(claim.uid, claim.node, claim.uuids, claim.stage.value)
            for claim in claims
            if claim.uid != uid and claim.node in nodes
        )[:HELD_KEPT],
        seconds={
            **(seconds or {}),
            **{who: took for who, took in decision.seconds.items() if took},
        },
        faults=tuple(f"{fault.plugin}: {fault.problem}" for fault in decision.faults),
    )


def thin(verdict: Verdict) -> Verdict:
    """Keep the scores of the nodes at the top alone: of the total, and of each strategy."""
    scores = verdict.scores
    if scores is None or not verdict.complete:
        return verdict
    kept = set(range(min(TOP_KEPT, len(scores.ids))))
    for row in scores.normalised:
        if len(row) > STRATEGY_TOP_KEPT:
            kept.update(np.argpartition(-row, STRATEGY_TOP_KEPT)[:STRATEGY_TOP_KEPT].tolist())
        else:
            kept.update(range(len(row)))
    places = np.array(sorted(kept), np.int64)
    small = ScoreTable(
        ids=scores.ids[places],
        totals=scores.totals[places],
        raw=scores.raw[:, places],
        normalised=scores.normalised[:, places],
    )
    return msgspec.structs.replace(verdict, scores=small, complete=len(places) == len(scores.ids))


def describe_workload(forecast: Forecast, mix: Mix) -> Workload:
    """Return the workload that nodes are judged against."""
    heaviest = sorted(forecast.classes, key=lambda item: -item[1])[:CLASSES_KEPT]
    return Workload(
        source=forecast.source,
        seen=forecast.seen,
        classes=tuple(
            MixLine(
                gpus=one.gpus,
                gpu_share=one.share_milli / WHOLE_GPU_MILLI,
                cpu=one.cpu_milli / 1000,
                share=share,
                models=one.models,
                gpu_memory_mib=one.gpu_memory_mib,
            )
            for one, share in heaviest
        ),
        sizes=mix.shares,
    )


def _best_first(decision: Decision) -> IntArray:
    """Return the accepted nodes' places: the answered ones, then the others by total.

    The answered ones are the best; of their equals that were not answered they come first.
    """
    order = np.argsort(-decision.totals, kind="stable")
    names, accepted = decision.candidates, decision.accepted
    least = min(option.score for option in decision.shortlist) - EQUAL
    near = order[: int((decision.totals >= least).sum())].tolist()
    places = {names[int(accepted[place])]: place for place in near}
    front = [places[option.node] for option in decision.shortlist]
    others = np.ones(len(order), np.bool_)
    others[front] = False
    return np.concatenate([np.array(front, np.int64), order[others[order]]])


def _scores(decision: Decision, ids: Ids, order: IntArray) -> ScoreTable:
    rows = len(decision.scores), len(order)
    raw, normalised = np.empty(rows, np.float32), np.empty(rows, np.float32)
    for row, scored in enumerate(decision.scores):
        raw[row] = scored.raw[order]
        normalised[row] = scored.normalised[order]
    return ScoreTable(
        ids=ids[decision.accepted[order]],
        totals=decision.totals[order],
        raw=raw,
        normalised=normalised,
    )


def _refused(refusal: Refusal, ids: Ids, table: NameTable) -> Refused:
    return Refused(
        by=refusal.by,
        reason=refusal.reason,
        busy=refusal.busy,
        count=len(refusal.places),
        nodes=table.pack(ids[refusal.places]),
    )


def _runners_up(
    decision: Decision, cluster: ClusterState, profile: Profile, order: IntArray
) -> tuple[ChosenSet, ...]:
    """Return the sets on the next best nodes. Only the winner's row has changed since."""
    first = len(decision.shortlist)
    next_best = order[first : first + RUNNERS_UP]
    totals = {
        decision.candidates[int(decision.accepted[place])]: float(decision.totals[place])
        for place in next_best.tolist()
    }
    view = cluster.view(list(totals)).under(profile.policy)
    found = []
    for place in range(len(view)):
        choice = view.choice(place, decision.request)
        if choice is not None:
            name = view.name(place)
            option = Option(name, totals[name], choice)
            found.append(_chosen(cluster, decision.request.uid, option))
    return tuple(found)


def _chosen(cluster: ClusterState, uid: str, option: Option) -> ChosenSet:
    facts = cluster.facts(option.node)
    choice: SetChoice = option.choice
    return ChosenSet(
        node=option.node,
        score=option.score,
        uuids=choice.uuids,
        members=choice.members,
        free=cluster.free_for(uid, option.node),
        bus_bandwidth_gbs=choice.bus_bandwidth_gbs,
        loss=choice.loss,
        pair_score=choice.pair_score,
        hardware=facts.hardware if facts is not None else None,
    )


def _busy_nodes(decision: Decision, cluster: ClusterState) -> set[str]:
    planned = cluster.claims.planned_nodes(but=decision.request.uid)
    return planned.intersection(decision.busy()) if planned else planned
