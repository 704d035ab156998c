"""Records -> what the API answers. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np

from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.explain.names import Ids, pick, unpack
from scheduler.explain.record import Binding, ChosenSet, Record, Refused, Verdict, Workload
from scheduler.explain.shapes import (
    BindingAnswer,
    ClassAnswer,
    DecisionAnswer,
    DemandAnswer,
    GpuAnswer,
    HostScore,
    LinkAnswer,
    NodeScore,
    PodAnswer,
    PodLine,
    RefusalAnswer,
    ReservationAnswer,
    SetAnswer,
    StrategyAnswer,
    StrategyScore,
    StrategyScores,
    WorkloadAnswer,
)
from topology.demands import pair_link, worst_link
from topology.gpuset import positions

SCALE: Final = 100.0
"""kube-scheduler's scores go from 0 to 100."""

DIGITS: Final = 6
"""Scores are written with so many decimals: what differs less is a tie."""

RATED_DIGITS: Final = 4
"""Likewise what strategies gave, which is kept in single precision."""

REFUSED_SHOWN: Final = 20
"""Names that stand beside each reason."""


def show_scores(record: Record, top: int) -> list[HostScore]:
    """Return the best nodes of a pod's last decision; the node it is bound to leads its equals."""
    verdict = record.verdict
    if verdict is None or verdict.scores is None:
        return []
    scores = verdict.scores
    order = _lead(verdict, record.binding)[:top]
    names = pick(verdict.table.names, scores.ids[order].tolist())
    totals = scores.totals[order].tolist()
    return [HostScore(name, _scaled(total)) for name, total in zip(names, totals, strict=True)]


def show_strategies(record: Record, top: int) -> list[StrategyScores]:
    """Return each strategy's best nodes; equals stand in the order of the total."""
    verdict = record.verdict
    if verdict is None or verdict.scores is None:
        return []
    scores = verdict.scores
    lead = _lead(verdict, record.binding)
    answer = []
    for strategy, row in zip(verdict.strategies, scores.normalised, strict=True):
        best = lead[np.argsort(-row[lead], kind="stable")[:top]]
        names = pick(verdict.table.names, scores.ids[best].tolist())
        hosts = tuple(
            HostScore(name, _rated(value))
            for name, value in zip(names, row[best].tolist(), strict=True)
        )
        answer.append(StrategyScores(strategy.name, round(strategy.weight, DIGITS), hosts))
    return answer


def show_pod(record: Record, top: int) -> PodAnswer:
    """Return everything that is known of a pod, with the scores of its best nodes."""
    request, verdict, binding = record.request, record.verdict, record.binding
    return PodAnswer(
        namespace=request.namespace,
        name=request.name,
        uid=request.uid,
        outcome=record.outcome,
        since=show_time(record.since),
        updated=show_time(record.updated),
        attempts=record.attempts,
        reason=record.text,
        asks=show_demand(request),
        decision=None if verdict is None else show_decision(verdict, top, binding),
        binding=None if binding is None else _show_binding(binding),
        trace=record.trace,
    )


def show_line(record: Record) -> PodLine:
    """Return a pod's line in a list."""
    request, verdict = record.request, record.verdict
    option = verdict.options[0] if verdict is not None and verdict.options else None
    node = None if option is None else option.node
    if record.binding is not None:
        node = record.binding.node
    return PodLine(
        namespace=request.namespace,
        name=request.name,
        uid=request.uid,
        outcome=record.outcome,
        since=show_time(record.since),
        updated=show_time(record.updated),
        attempts=record.attempts,
        gpus=request.demand.count,
        node=node,
        score=None if option is None else _scaled(option.score),
        reason=record.text,
    )


def show_decision(verdict: Verdict, top: int, binding: Binding | None = None) -> DecisionAnswer:
    """Return a decision with the scores of its best nodes."""
    return DecisionAnswer(
        time=show_time(verdict.at),
        profile=verdict.profile,
        tolerance=verdict.tolerance * SCALE,
        considered=verdict.considered,
        accepted=verdict.accepted,
        could_preempt=verdict.could_preempt,
        unknown=verdict.unknown,
        refusals=tuple(_show_refusal(verdict, refused) for refused in verdict.refusals),
        strategies=tuple(
            StrategyAnswer(one.name, round(one.weight, DIGITS)) for one in verdict.strategies
        ),
        nodes=_show_nodes(verdict, _lead(verdict, binding)[:top]),
        complete=verdict.complete,
        options=tuple(show_set(one) for one in verdict.options),
        runners_up=tuple(show_set(one) for one in verdict.runners_up),
        workload=show_workload(verdict.workload),
        loads=verdict.loads,
        reservations_in_force=verdict.claims,
        reservations=tuple(
            ReservationAnswer(held.uid, held.node, held.uuids, held.stage) for held in verdict.held
        ),
        durations=verdict.seconds,
        faults=verdict.faults,
    )


def show_workload(workload: Workload) -> WorkloadAnswer:
    """Return the workload that nodes are judged against."""
    return WorkloadAnswer(
        source=workload.source,
        seen=workload.seen,
        classes=tuple(
            ClassAnswer(
                gpus=one.gpus,
                gpu_share=one.gpu_share,
                cpu=one.cpu,
                share=round(one.share, DIGITS),
                gpu_models=one.models,
                gpu_memory_mib=one.gpu_memory_mib,
            )
            for one in workload.classes
        ),
        sizes={str(size): weight for size, weight in workload.sizes},
    )


def show_set(one: ChosenSet) -> SetAnswer:
    """Return a set with its links."""
    where = list(positions(one.members))
    gpus: tuple[GpuAnswer, ...] = ()
    links: tuple[LinkAnswer, ...] = ()
    worst = None
    if one.hardware is not None:
        cls = one.hardware.links
        gpus = tuple(
            GpuAnswer(
                position=position,
                uuid=uuid,
                model=one.hardware.models[position],
                numa_node=None if cls.numa[position] < 0 else cls.numa[position],
            )
            for position, uuid in zip(where, one.uuids, strict=True)
        )
        links = tuple(
            LinkAnswer((i, j), str(pair_link(cls, i, j)))
            for n, i in enumerate(where)
            for j in where[n + 1 :]
        )
        weakest = worst_link(cls, one.members)
        worst = None if weakest is None else str(weakest)
    return SetAnswer(
        node=one.node,
        score=_scaled(one.score),
        gpus=gpus,
        links=links,
        worst_link=worst,
        bus_bandwidth_gbs=round(one.bus_bandwidth_gbs, 3),
        pair_score=one.pair_score,
        loss=one.loss,
        free=tuple(positions(one.free)),
    )


def show_demand(request: PodRequest) -> DemandAnswer:
    """Return what a pod asks for."""
    demand = request.demand
    return DemandAnswer(
        gpus=demand.count,
        gpu_share=demand.share_milli / WHOLE_GPU_MILLI if demand.count else 0.0,
        containers={one.name: one.count for one in (*request.init, *request.containers)},
        gpu_models=demand.models,
        gpu_memory_mib=demand.memory_mib,
        min_link=None if demand.min_link is None else str(demand.min_link),
        strict=demand.strict,
        profile=request.profile,
        priority=request.priority,
        cpu=request.asks.cpu_milli / 1000,
        memory_mib=request.asks.memory_mib,
    )


def show_time(seconds: float) -> str:
    """Return Unix seconds in RFC 3339, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _lead(verdict: Verdict, binding: Binding | None) -> Ids:
    """Return the places of the scores, best first; the bound node before its equals."""
    scores = verdict.scores
    if scores is None:
        return np.zeros(0, np.int32)
    order = np.arange(len(scores.ids), dtype=np.int32)
    if binding is None:
        return order
    number = verdict.table.find(binding.node)
    places = np.flatnonzero(scores.ids == number) if number is not None else order[:0]
    if not len(places):
        return order
    place = int(places[0])
    first = int((scores.totals > scores.totals[place] + 10**-DIGITS / SCALE / 2).sum())
    if first < place:
        order[first + 1 : place + 1] = order[first:place]
        order[first] = place
    return order


def _show_nodes(verdict: Verdict, places: Ids) -> tuple[NodeScore, ...]:
    scores = verdict.scores
    if scores is None:
        return ()
    return tuple(
        NodeScore(
            node=verdict.table.names[int(scores.ids[place])],
            score=_scaled(float(scores.totals[place])),
            strategies=tuple(
                StrategyScore(
                    strategy=strategy.name,
                    raw=round(float(scores.raw[row, place]), RATED_DIGITS) + 0.0,
                    normalised=_rated(float(scores.normalised[row, place])),
                    weighted=_rated(float(scores.normalised[row, place]) * strategy.weight),
                )
                for row, strategy in enumerate(verdict.strategies)
            ),
        )
        for place in places.tolist()
    )


def _show_refusal(verdict: Verdict, refused: Refused) -> RefusalAnswer:
    names = sorted(pick(verdict.table.names, unpack(refused.nodes).tolist()))
    return RefusalAnswer(
        plugin=refused.by,
        reason=refused.reason,
        busy=refused.busy,
        count=refused.count,
        nodes=tuple(names[:REFUSED_SHOWN]),
    )


def _show_binding(binding: Binding) -> BindingAnswer:
    return BindingAnswer(
        time=show_time(binding.at),
        node=binding.node,
        how=binding.how,
        containers=binding.containers,
        bus_bandwidth_gbs=round(binding.bus_bandwidth_gbs, 3),
        duration=binding.seconds,
    )


def _rated(normalised: float) -> float:
    return round(normalised * SCALE, RATED_DIGITS)


def _scaled(score: float) -> float:
    return round(score * SCALE, DIGITS)
