"""Rounds: who is asked when, what is written, and what is counted."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Mapping

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from runtime.errors import ApiError
from scheduler.load.answers import Query
from scheduler.load.breaker import Rules
from scheduler.load.feed import Guarded, LoadFeed
from scheduler.load.metrics import LoadMetrics
from scheduler.load.recent import RecentPods
from scheduler.load.samples import Metric
from scheduler.load.settings import PrometheusSettings
from scheduler.load.sources import MetricsApiSource, PrometheusSource
from scheduler.load.table import LoadTable
from tests.scheduler.load.answering import NOW, RESOURCE, book, node, node_metrics, pod, vector
from tests.scheduler.load.conftest import FakePrometheus, hangs, says
from tests.scheduler.load.test_sources import Api

STALE = 120.0
RULES = Rules(failures=2, first_pause=10.0, last_pause=40.0)
QUERIES: dict[Metric, Query] = {"cpu": Query("cpu_use"), "memory": Query("memory_use")}
WEIGHTS: dict[Metric, float] = {"cpu": 1.0, "memory": 1.0}


class Column:
    """The column, as the engine would have it."""

    def __init__(self) -> None:
        self.loads: dict[str, float | None] = {}
        self.writes = 0
        self.third = asyncio.Event()

    def put_loads(self, loads: Mapping[str, float]) -> None:
        """Replace all."""
        self.writes += 1
        if self.writes == 3:
            self.third.set()
        self.loads = {}
        for name, load in loads.items():
            self.put_load(name, load)

    def put_load(self, name: str, load: float) -> None:
        """Replace one."""
        self.loads[name] = None if math.isnan(load) else round(load, 6)


class Rig:
    """A feed over a server on loopback, with clocks that are set."""

    def __init__(
        self, server: FakePrometheus, *, api: Api | None, with_prometheus: bool = True
    ) -> None:
        self.server = server
        self.now = NOW
        self.steady = 0.0
        self.column = Column()
        self.registry = CollectorRegistry()
        self.api = api
        metrics = LoadMetrics(self.registry, ("prometheus", "metrics_api"), ("cpu", "memory"))
        nodes = book(node("n1", cpu="8"), node("n2", cpu="8"))
        pods = RecentPods(RESOURCE, 240.0, lambda: self.now, lambda *_: None)

        def guard(source: PrometheusSource | MetricsApiSource) -> Guarded:
            return Guarded(source, RULES, metrics, lambda: 0.0, lambda: self.steady)

        settings = PrometheusSettings(url=server.url, timeout_seconds=0.5)
        self.source = PrometheusSource(settings, QUERIES)
        sources = [guard(self.source)] if with_prometheus else []
        if api is not None:
            sources.append(guard(MetricsApiSource(api, ("cpu", "memory"))))
        self.feed = LoadFeed(
            nodes=nodes,
            pods=pods,
            table=LoadTable(nodes, pods, WEIGHTS, STALE),
            sources=tuple(sources),
            metrics=metrics,
            column=self.column,
            refresh_seconds=15.0,
            rng=random.Random(1),
            clock=lambda: self.now,
        )

    def says(self, **loads: float) -> None:
        """Let the server tell these CPUs, and that nobody uses memory."""
        told = [({"node": name}, load) for name, load in loads.items()]
        self.server.answers["cpu_use"] = vector(*told, at=self.now)
        self.server.answers["memory_use"] = vector(*((l, 0.0) for l, _ in told), at=self.now)  # noqa: E741

    async def pass_time(self, seconds: float) -> None:
        """Let time go by, and do a round."""
        self.now += seconds
        self.steady += seconds
        await self.feed.refresh()

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        value = self.registry.get_sample_value(f"gputopo_extender_load_{name}", labels)
        assert value is not None, name
        return value

    @property
    def circuit(self) -> str:
        """The state of Prometheus' circuit, by the metrics."""
        (state,) = [
            state
            for state in ("closed", "half_open", "open")
            if self.count("circuit", source="prometheus", state=state)
        ]
        return state


@pytest.fixture
async def rig(prometheus: FakePrometheus) -> AsyncIterator[Rig]:
    """Return a feed with Prometheus and a metrics API that knows both nodes."""
    made = Rig(prometheus, api=Api(node_metrics(("n1", "6", "0"), ("n2", "2", "0"))))
    made.says(n1=0.2, n2=0.8)
    yield made
    await made.feed.close()


async def test_a_round_asks_once_a_metric_and_writes_the_column(rig: Rig) -> None:
    """The fallback is left alone."""
    await rig.feed.refresh()
    assert rig.column.loads == {"n1": 0.1, "n2": 0.4}
    assert len(rig.server.asked) == len(QUERIES)
    assert rig.api is not None
    assert rig.api.paths == []
    assert rig.count("queries_total", source="prometheus", outcome="ok") == 2
    assert rig.count("query_seconds_count", source="prometheus") == 2
    assert rig.count("nodes", metric="cpu") == 2
    assert rig.circuit == "closed"


async def test_without_nodes_nobody_is_asked(rig: Rig) -> None:
    """The first list has not come yet."""
    rig.feed.nodes.listed(())
    await rig.feed.refresh()
    assert rig.server.asked == []
    assert rig.column.loads == {}


async def test_without_prometheus_the_metrics_api_is_asked(prometheus: FakePrometheus) -> None:
    """In every round."""
    rig = Rig(prometheus, api=Api(node_metrics(("n1", "6", "0"))), with_prometheus=False)
    await rig.feed.refresh()
    assert rig.column.loads == {"n1": 0.375, "n2": None}
    assert rig.server.asked == []


async def test_a_stopped_prometheus_is_replaced_when_its_circuit_opens(rig: Rig) -> None:
    """Until then its samples age; when it is back and its pause is over, it counts again."""
    await rig.feed.refresh()
    await rig.server.stop()
    await rig.pass_time(15)
    assert (rig.circuit, rig.column.loads) == ("closed", {"n1": 0.1, "n2": 0.4})
    assert rig.count("failures_in_a_row", source="prometheus") == 1
    # Connections and certificates are made anew for the next try.
    assert rig.source._session is None
    assert rig.api is not None
    rig.api.answer = node_metrics(("n1", "6", "0"), ("n2", "2", "0"), at=rig.now + 15)
    await rig.pass_time(15)
    assert (rig.circuit, rig.column.loads) == ("open", {"n1": 0.375, "n2": 0.125})
    assert rig.feed.report("n1").metrics[0].source == "metrics_api"  # type: ignore[union-attr]  # it is there
    await rig.server.start()
    rig.says(n1=0.2, n2=0.8)
    await rig.pass_time(9)
    assert (rig.circuit, rig.server.asked[2:]) == ("open", [])
    rig.now += 1
    rig.steady += 1
    rig.says(n1=0.3, n2=0.9)
    await rig.feed.refresh()
    assert (rig.circuit, rig.column.loads) == ("closed", {"n1": 0.15, "n2": 0.45})
    assert rig.feed.report("n1").metrics[0].source == "prometheus"  # type: ignore[union-attr]  # it is there
    assert rig.count("failures_in_a_row", source="prometheus") == 0


async def test_a_probe_is_one_question(rig: Rig) -> None:
    """A server that has just come back is not asked for everything; failing, it rests longer."""
    rig.server.reply = says(b"", 500)
    await rig.feed.refresh()
    await rig.pass_time(15)
    assert rig.circuit == "open"
    rig.server.asked.clear()
    await rig.pass_time(10)
    assert (rig.circuit, len(rig.server.asked)) == ("open", 1)
    await rig.pass_time(19)
    assert len(rig.server.asked) == 1
    await rig.pass_time(1)
    assert len(rig.server.asked) == 2
    rig.server.reply = None
    await rig.pass_time(40)
    assert (rig.circuit, len(rig.server.asked)) == ("closed", 2 + len(QUERIES))


async def test_one_failed_question_does_not_open_the_circuit(rig: Rig) -> None:
    """What the others say is used; the metric that failed ages by itself."""
    rig.server.answers["memory_use"] = b"<html>"
    for _ in range(5):
        await rig.pass_time(15)
    assert rig.circuit == "closed"
    assert rig.column.loads == {"n1": 0.2, "n2": 0.8}
    assert rig.count("queries_total", source="prometheus", outcome="unreadable") == 5


async def test_a_server_that_knows_nobody_counts_as_failed(rig: Rig) -> None:
    """It has lost its data, or our labels lead nowhere: the fallback is better."""
    rig.says(n8=0.1, n9=0.2)
    await rig.feed.refresh()
    await rig.feed.refresh()
    assert rig.circuit == "open"
    assert rig.count("queries_total", source="prometheus", outcome="empty") == 4
    assert rig.count("refused_samples_total", metric="cpu", reason="unknown_node") == 4
    assert rig.column.loads == {"n1": 0.375, "n2": 0.125}


async def test_with_everybody_away_all_becomes_unknown(rig: Rig) -> None:
    """After stale_seconds, not before; rounds go on."""
    await rig.feed.refresh()
    await rig.server.stop()
    assert rig.api is not None
    rig.api.answer = ApiError(503, "ServiceUnavailable", "")
    for _ in range(8):
        await rig.pass_time(15)
    assert rig.column.loads == {"n1": 0.1, "n2": 0.4}
    await rig.pass_time(1)
    assert rig.column.loads == {"n1": None, "n2": None}
    assert rig.count("nodes", metric="cpu") == 0


async def test_a_lying_server_is_believed_in_nothing_that_cannot_be(rig: Rig) -> None:
    """NaN, percent, a negative share, a node of another cluster."""
    rig.server.answers["cpu_use"] = vector(
        ({"node": "n1"}, "NaN"), ({"node": "n2"}, 0.6), ({"node": "n9"}, 0.1), at=rig.now
    )
    rig.server.answers["memory_use"] = vector(
        ({"node": "n1"}, 0.2), ({"node": "n2"}, 37.5), at=rig.now
    )
    await rig.feed.refresh()
    assert rig.column.loads == {"n1": 0.4, "n2": 0.4}
    told = rig.feed.report("n1")
    assert told is not None
    assert [(m.metric, m.state, m.used) for m in told.metrics] == [
        ("cpu", "missing", 0.6),
        ("memory", "fresh", 0.2),
    ]
    for reason in ("nan", "unknown_node"):
        assert rig.count("refused_samples_total", metric="cpu", reason=reason) == 1
    assert rig.count("refused_samples_total", metric="memory", reason="above_one") == 1


async def test_a_slow_server_is_given_up_and_the_round_ends(rig: Rig) -> None:
    """It is written what is known."""
    rig.server.reply = hangs
    await rig.feed.refresh()
    assert rig.count("queries_total", source="prometheus", outcome="timeout") == 2
    assert rig.column.loads == {"n1": None, "n2": None}


async def test_a_pod_changes_its_nodes_load_at_once(rig: Rig) -> None:
    """Bound, it adds what it requests; gone, it takes it back. No round is waited for."""
    await rig.feed.refresh()
    rig.feed.pods.changed(pod("a", "n1", cpu=4))
    assert rig.column.loads == {"n1": 0.35, "n2": 0.4}
    rig.feed.pods.deleted(pod("a", "n1", cpu=4))
    assert rig.column.loads == {"n1": 0.1, "n2": 0.4}
    rig.feed.pods.listed((pod("b", "n2", cpu=1),))
    assert rig.column.loads == {"n1": 0.1, "n2": 0.4625}
    rig.feed.pods.listed(())
    assert rig.column.loads == {"n1": 0.1, "n2": 0.4}
    assert len(rig.server.asked) == len(QUERIES)


async def test_nodes_follow_the_watch(rig: Rig) -> None:
    """A new one is unknown until somebody tells of it; one that went is gone."""
    rig.feed.nodes.changed(node("n3"))
    rig.feed.nodes.deleted(node("n1"))
    await rig.feed.refresh()
    assert rig.column.loads == {"n2": 0.4, "n3": None}


async def test_a_lasting_failure_is_told_once(rig: Rig) -> None:
    """And its end."""
    with capture_logs() as logs:
        rig.server.reply = says(b"", 500)
        for _ in range(2):
            await rig.pass_time(1)
        for _ in range(5):
            await rig.pass_time(40)
        rig.server.reply = None
        await rig.pass_time(40)
        rig.says(n1=0.1, n9=0.1)
        await rig.pass_time(1)
        await rig.pass_time(1)
    told = [
        (entry["log_level"], entry.get("circuit")) for entry in logs if entry["event"] == "asked"
    ]
    assert told == [
        ("warning", "closed"),
        ("warning", "open"),
        ("info", "closed"),
    ]
    refused = [entry for entry in logs if entry["event"] == "samples refused"]
    assert [entry["metric"] for entry in refused] == ["cpu", "memory"]


async def test_rounds_go_on_until_cancelled(rig: Rig) -> None:
    """And the connections are closed then."""
    rig.feed._refresh = 0.01
    task = asyncio.create_task(rig.feed.run())
    await rig.column.third.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.source._session is None
