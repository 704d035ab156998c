"""COMPOSITION ROOT of the extender: builds everything, owns the TaskGroup."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from runtime import lifecycle, logs
from runtime.errors import AccessError, TracingError
from runtime.kube_aio import AioKubeClient, connect_aio
from runtime.objects import Node, Pod
from runtime.ops import OpsServer
from runtime.reflector import AioReflector
from runtime.tracing import NO_TRACER, Tracer, open_tracer
from scheduler.configuration import build_mix, build_profiles, build_workload
from scheduler.dashboard import routes as dashboard
from scheduler.dashboard.feed import Feed
from scheduler.dashboard.pages import Sources
from scheduler.engine.cluster import ClusterState
from scheduler.engine.framework import Framework
from scheduler.engine.planner import Planner
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import Profile
from scheduler.errors import ExtensionError, ProfileError
from scheduler.explain import app as explain_app
from scheduler.explain.recorder import Later, when_asked
from scheduler.explain.settings import ExplainSettings
from scheduler.explain.tokens import TokenFileError
from scheduler.explain.unasked import WaitingPods
from scheduler.explain.wiring import (
    Tokens,
    build_access,
    build_explain,
    build_relay,
    read_tokens,
)
from scheduler.extender import app
from scheduler.extender.handlers import Handlers
from scheduler.extensions import load_plugins
from scheduler.fault_log import FaultLog
from scheduler.housekeeping import Health, keep_house
from scheduler.kube.binder import PAUSES, Binder, PodsApi
from scheduler.kube.inventory import Inventory, Report
from scheduler.load.feed import Column, Guarded, LoadFeed
from scheduler.load.metrics import LoadMetrics
from scheduler.load.nodes import NodeBook
from scheduler.load.recent import RecentPods
from scheduler.load.report import LoadReport
from scheduler.load.settings import LoadSettings
from scheduler.load.sources import KubeApi, MetricsApiSource, PrometheusSource, Source
from scheduler.load.table import LoadTable
from scheduler.metrics import Metrics
from scheduler.parts import Extender
from scheduler.serving import listen, make_server, make_wary_server, serve, serve_probes
from scheduler.settings import ExtenderSettings
from topology.errors import TopologyError
from topology.tables import Mix

RECONNECT_SECONDS: Final = 1.0
"""The longest pause before the API server is asked again."""

_log = structlog.get_logger("scheduler.main")


class Questions(msgspec.Struct, frozen=True):
    """Where the explain API listens, None for nowhere, and the tokens that it knows."""

    listener: socket.socket | None
    tokens: Tokens
    settings: ExplainSettings


def run(settings: ExtenderSettings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code: 0 after a signal, 1 after a fault."""
    logs.setup(settings.log_level, component="extender")
    registry = CollectorRegistry()
    health = Health()
    ops = OpsServer(
        settings.ops_host,
        settings.ops_port,
        registry=registry,
        healthy=health.healthy,
        ready=health.ready,
    )
    try:
        framework = load_plugins(settings.plugins, built_in())
        profiles = build_profiles(settings, framework)
        mix = build_mix(settings)
        tokens = read_tokens(settings.explain)
        with (
            listen(settings.host, settings.port) as listener,
            _listen_to_questions(settings.explain) as questions,
            serve_probes(ops, f"{settings.ops_host}:{settings.ops_port}"),
            contextlib.closing(open_tracer("gputopo-extender", os.environ)) as tracer,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(
                _main(
                    settings,
                    listener,
                    health,
                    lambda client: build(
                        settings,
                        profiles,
                        mix,
                        client,
                        registry,
                        framework=framework,
                        later=asyncio.get_running_loop().call_soon,
                        tracer=tracer,
                    ),
                    Questions(questions, tokens, settings.explain),
                )
            )
    except ExtensionError as error:
        for problem in error.problems:
            _log.error("cannot start", error=problem)
        return 1
    except (
        ProfileError,
        TopologyError,
        OSError,
        AccessError,
        TokenFileError,
        TracingError,
    ) as error:
        _log.error("cannot start", error=str(error))
        return 1


def build(
    settings: ExtenderSettings,
    profiles: dict[str, Profile],
    mix: Mix,
    client: PodsApi,
    registry: CollectorRegistry,
    *,
    pauses: tuple[float, ...] = PAUSES,
    framework: Framework | None = None,
    later: Later = when_asked,
    tracer: Tracer = NO_TRACER,
) -> Extender:
    """Wire the collaborators, without starting anything. `pauses` are the binder's, in seconds.

    Without `framework` only the built-in plugins take part. `later` does what need not be done
    before an answer.
    """
    metrics = Metrics(registry)
    cluster = ClusterState(mix, workload=build_workload(settings))

    def report(kind: str, name: str, problem: str) -> None:
        metrics.unreadable[kind].inc()
        _log.warning("unreadable", kind=kind, name=name, problem=problem)

    inventory = Inventory(cluster, settings.resource, report)
    planner = Planner(
        cluster,
        framework or built_in(),
        profiles,
        default_profile=settings.default_profile,
        hold_seconds=settings.hold_seconds,
        shortlist=settings.shortlist,
        stopwatch=time.perf_counter,
        tell=FaultLog(metrics, time.monotonic).tell,
    )
    load = None
    if settings.load is not None:
        load = build_load(
            settings.load,
            resource=settings.resource,
            column=cluster.columns,
            client=client,
            registry=registry,
            report=report,
        )
    waiting = WaitingPods(settings.resource)
    explain = build_explain(
        settings.explain,
        planner,
        inventory,
        registry,
        waiting=waiting,
        resource=settings.resource,
        later=later,
        report=load.report if load is not None else _no_load,
        tracer=tracer,
    )
    binder = Binder(
        planner,
        inventory,
        client,
        resource=settings.resource,
        clock=time.monotonic,
        timeout=settings.bind_timeout_seconds,
        metrics=metrics,
        recorder=explain.recorder,
        traces=explain.traces,
        pauses=pauses,
        any_pod=settings.place_all_pods,
    )
    handlers = Handlers(
        planner,
        inventory,
        binder,
        resource=settings.resource,
        clock=time.monotonic,
        metrics=metrics,
        recorder=explain.recorder,
        traces=explain.traces,
        any_pod=settings.place_all_pods,
    )
    return Extender(
        cluster=cluster,
        planner=planner,
        inventory=inventory,
        binder=binder,
        handlers=handlers,
        metrics=metrics,
        explain=explain,
        waiting=waiting,
        load=load,
        learns_sizes=not settings.mix and not settings.workload,
    )


def _no_load(node: str) -> LoadReport | None:  # noqa: ARG001 -- as the feed's report
    """Say that nobody asks for load."""
    return None


def build_load(
    settings: LoadSettings,
    *,
    resource: str,
    column: Column,
    client: KubeApi,
    registry: CollectorRegistry,
    report: Report,
) -> LoadFeed:
    """Wire what keeps the load column, without starting anything."""
    rng = random.Random()  # noqa: S311 -- jitter, no secret
    sources: list[Source] = []
    if settings.prometheus is not None:
        sources.append(PrometheusSource(settings.prometheus, settings.queries()))
    if settings.metrics_api:
        sources.append(MetricsApiSource(client, settings.asked))
    metrics = LoadMetrics(registry, tuple(source.name for source in sources), settings.asked)
    nodes = NodeBook(resource, settings.node_labels, report)
    pods = RecentPods(resource, settings.remember_seconds, time.time, report)
    rules = settings.breaker.as_rules()
    return LoadFeed(
        nodes=nodes,
        pods=pods,
        table=LoadTable(nodes, pods, settings.weights, settings.stale_seconds),
        sources=tuple(Guarded(source, rules, metrics, rng.random) for source in sources),
        metrics=metrics,
        column=column,
        refresh_seconds=settings.refresh_seconds,
        rng=rng,
    )


async def _main(
    settings: ExtenderSettings,
    listener: socket.socket,
    health: Health,
    make: Callable[[AioKubeClient], Extender],
    questions: Questions,
) -> int:
    client = await connect_aio(settings.kubeconfig)
    extender = make(client)
    health.inventory = extender.inventory
    try:
        return await lifecycle.run_until_signal(
            _serve(extender, client, listener, health, questions)
        )
    finally:
        await extender.binder.close()
        await client.close()


async def _serve(
    extender: Extender,
    client: AioKubeClient,
    listener: socket.socket,
    health: Health,
    questions: Questions,
) -> None:
    # Two replicas may ask every second: what they do not hear, they bind by an old picture.
    nodes = AioReflector(
        client,
        "/api/v1/nodes",
        Node,
        extender.nodes,
        name="nodes",
        last_pause=RECONNECT_SECONDS,
        following=partial(extender.inventory.follow, "nodes"),
    )
    # A list from a lagging cache could hide a Binding made before a restart: a GPU given twice.
    pods = AioReflector(
        client,
        "/api/v1/pods",
        Pod,
        extender.pods,
        name="pods",
        last_pause=RECONNECT_SECONDS,
        consistent=True,
        following=partial(extender.inventory.follow, "pods"),
    )
    server = make_server(app.build(extender.handlers, extender.metrics))
    async with asyncio.TaskGroup() as group:
        lifecycle.start(group, "reflect nodes", nodes.run())
        lifecycle.start(group, "reflect pods", pods.run())
        lifecycle.start(group, "housekeeping", keep_house(extender, health))
        lifecycle.start(group, "verbs", serve(server, listener))
        if extender.load is not None:
            lifecycle.start(group, "load", extender.load.run())
        if extender.explain.events is not None:
            lifecycle.start(group, "events", extender.explain.events.run(client))
        if questions.listener is not None:
            lifecycle.start(group, "explain", _explain(extender, client, questions))
        _log.info("serving", port=listener.getsockname()[1])


async def _explain(extender: Extender, client: AioKubeClient, questions: Questions) -> None:
    """Answer questions, on pages too, until cancelled."""
    listener, explain = questions.listener, extender.explain
    if listener is None:
        return
    port = listener.getsockname()[1]
    settings, tokens = questions.settings, questions.tokens
    access = build_access(settings, tokens, client)
    relay = build_relay(settings, tokens, client, port)
    api = explain_app.build(explain.desk, access, metrics=explain.metrics, relay=relay)
    _log.info("explaining", port=port)
    async with asyncio.TaskGroup() as group:
        if relay is not None:
            lifecycle.start(group, "relay", relay.live())
        if settings.dashboard:
            feed = Feed(
                explain.desk, explain.store, extender.waiting, name=f"{secrets.token_hex(4)}-"
            )
            lifecycle.start(group, "dashboard", feed.run())
            sources = Sources(explain.desk, explain.store, extender.waiting, feed)
            api = dashboard.build(sources, api, access, relay)
        lifecycle.start(group, "questions", serve(make_wary_server(api), listener))


@contextlib.contextmanager
def _listen_to_questions(settings: ExplainSettings) -> Iterator[socket.socket | None]:
    """Take the API's port, if there is to be one."""
    if settings.port < 0:
        yield None
        return
    with listen(settings.host, settings.port) as listener:
        yield listener
