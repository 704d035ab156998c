"""Builds what explains decisions, out of what makes them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import msgspec
from prometheus_client import CollectorRegistry

from runtime.tracing import NO_TRACER, Tracer
from scheduler.engine.planner import Planner
from scheduler.explain.access import Access
from scheduler.explain.desk import Desk
from scheduler.explain.dry_run import DryRuns
from scheduler.explain.events import Events
from scheduler.explain.fleet import Fleet
from scheduler.explain.leader import GetApi, Leader
from scheduler.explain.listeners import count_in, log_decision, write_to
from scheduler.explain.metrics import ExplainMetrics
from scheduler.explain.recorder import Later, Recorder
from scheduler.explain.relay import Relay
from scheduler.explain.reviews import PostApi, Reviews
from scheduler.explain.settings import ExplainSettings, is_loopback
from scheduler.explain.stock import TraitBook
from scheduler.explain.store import Store
from scheduler.explain.tokens import TokenFile
from scheduler.explain.traces import Traces
from scheduler.explain.unasked import WaitingPods
from scheduler.explain.waits import Waits
from scheduler.kube.inventory import Inventory
from scheduler.load.report import LoadReport


class Explain(msgspec.Struct, frozen=True):
    """The collaborators that explain. `events` is None if none are to be written."""

    recorder: Recorder
    store: Store
    desk: Desk
    traits: TraitBook
    traces: Traces
    metrics: ExplainMetrics
    events: Events | None


def build_explain(
    settings: ExplainSettings,
    planner: Planner,
    inventory: Inventory,
    registry: CollectorRegistry,
    *,
    waiting: WaitingPods,
    resource: str,
    later: Later,
    report: Callable[[str], LoadReport | None],
    tracer: Tracer = NO_TRACER,
) -> Explain:
    """Wire them, without starting anything. `report` says what a node's load is made of."""
    metrics = ExplainMetrics(registry)
    store = Store(settings.limits)
    listeners = [count_in(metrics, planner.cluster.sets.tables), log_decision]
    events = None
    if settings.events.enabled:
        events = Events(
            lifetime=settings.events.lifetime_seconds,
            rate=settings.events.per_second,
            instance=identity(settings),
            clock=time.time,
            metrics=metrics,
        )
        listeners.append(write_to(events))
    traces = Traces(tracer)
    recorder = Recorder(
        store,
        planner,
        later=later,
        report=report,
        listeners=tuple(listeners),
        trace_of=traces.root,
    )
    traits = TraitBook()
    cluster = planner.cluster
    desk = Desk(
        recorder,
        Fleet(cluster, inventory, store, report),
        Waits(cluster, inventory, store),
        DryRuns(
            planner,
            inventory,
            store,
            traits,
            resource=resource,
            steady=time.monotonic,
            clock=recorder.clock,
        ),
        waiting,
    )
    return Explain(recorder, store, desk, traits, traces, metrics, events)


class Tokens(msgspec.Struct, frozen=True):
    """The token that callers may show, and the one that we show to who decides."""

    ours: TokenFile | None
    shown: TokenFile | None


def read_tokens(settings: ExplainSettings) -> Tokens:
    """Read them before anything is started. Raises OSError or TokenFileError."""
    ours = None if settings.token_file is None else TokenFile(settings.token_file)
    path = settings.peer_token_file
    return Tokens(ours, ours if path is None else TokenFile(path))


def build_access(settings: ExplainSettings, tokens: Tokens, api: PostApi) -> Access:
    """Return what lets callers in."""
    return Access(
        token=tokens.ours,
        reviews=Reviews(api, settings.audience, clock=time.monotonic)
        if settings.audience
        else None,
        trust_loopback=settings.trusts_loopback,
    )


def build_relay(settings: ExplainSettings, tokens: Tokens, api: GetApi, port: int) -> Relay | None:
    """Return what asks the replica that decides; None without a Lease to go by."""
    if not settings.lease:
        return None
    return Relay(
        Leader(api, settings.lease, me=identity(settings), clock=time.monotonic),
        port=port,
        reachable=not is_loopback(settings.host),
        token=tokens.shown,
    )


def identity(settings: ExplainSettings) -> str:
    """Return the name of our own pod."""
    return settings.identity or socket.gethostname()
