"""Who is told of records: the metrics, the log, and the Events."""

from __future__ import annotations

import structlog

from scheduler.engine.sets import ClassTables
from scheduler.explain.events import Events
from scheduler.explain.metrics import ExplainMetrics, size_label
from scheduler.explain.obtainable import obtainable
from scheduler.explain.record import ChosenSet, Record
from scheduler.explain.recorder import Listener

_log = structlog.get_logger("scheduler.decisions")


def count_in(metrics: ExplainMetrics, tables: ClassTables) -> Listener:
    """Return what counts decisions, and measures the sets that were bound."""

    def count(record: Record, before: Record | None) -> None:
        if record is before:
            return
        if before is not None and before.outcome == record.outcome == "bound":
            return  # the watch was faster than the answer
        metrics.decisions[record.outcome].inc()
        if record.binding is None:
            return
        metrics.waited.observe(max(record.binding.at - record.since, 0.0))
        option = bound_option(record)
        gpus = record.request.demand.count
        if option is None or option.hardware is None or gpus < 2 or not option.uuids:
            return
        known = tables.of(option.hardware)
        best = obtainable(known, known.everything).bandwidths
        if gpus <= len(best) and best[gpus - 1] > 0:
            ratio = record.binding.bus_bandwidth_gbs / best[gpus - 1]
            metrics.quality[size_label(gpus)].observe(ratio)

    return count


def log_decision(record: Record, before: Record | None) -> None:
    """Write one line for each pod that is placed, and for each reason that it waits for."""
    if record is before or not is_news(record, before):
        return
    request = record.request
    about = {
        "pod": f"{request.namespace}/{request.name}",
        "uid": request.uid,
        "gpus": request.demand.count,
        "attempts": record.attempts,
    }
    if record.binding is not None:
        _log.info(
            "placed",
            **about,
            node=record.binding.node,
            how=record.binding.how,
            bus_bandwidth_gbs=round(record.binding.bus_bandwidth_gbs, 3),
            seconds=round(record.binding.at - record.since, 3),
        )
    elif record.outcome != "planned":
        _log.info(record.outcome, **about, reason=record.text)


def write_to(events: Events) -> Listener:
    """Return what offers news to the Events: what was bound, and each new reason to wait."""

    def offer(record: Record, before: Record | None) -> None:
        if record.outcome in {"bound", "refused"} and is_news(record, before):
            events.offer(record)

    return offer


def is_news(record: Record, before: Record | None) -> bool:
    """Return whether a record says more than the one before: another outcome, or reason.

    How often it was tried and how many nodes a reason refuses is no news.
    """
    return before is None or _gist(before) != _gist(record)


def _gist(record: Record) -> tuple[str, frozenset[str]]:
    verdict = record.verdict
    if record.outcome == "refused" and verdict is not None:
        return record.outcome, frozenset(refused.reason for refused in verdict.refusals)
    return record.outcome, frozenset([record.text])


def bound_option(record: Record) -> ChosenSet | None:
    """Return the answered option that the pod is bound to."""
    if record.binding is None or record.verdict is None:
        return None
    node = record.binding.node
    return next((one for one in record.verdict.options if one.node == node), None)
