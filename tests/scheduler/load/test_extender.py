"""Load from a server that plays Prometheus up to the extender's answer, over HTTP.

The API server is the embedded one, the verbs are called as kube-scheduler calls them, and nothing
waits for Prometheus: stopped, slow or lying, every pod gets its node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import time
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from runtime.kube_aio import AioKubeClient
from scheduler.load.answers import PART
from scheduler.load.node_metrics import PATH
from scheduler.load.report import LoadReport
from scheduler.settings import ExtenderSettings
from tests.scheduler.conftest import SETTINGS, Border, Town, make_town
from tests.scheduler.load.answering import node_metrics, vector
from tests.scheduler.load.conftest import FakePrometheus, hangs, says
from tests.scheduler.nodes import RESOURCE, mesh

NAMES = ("n1", "n2", "n3")


class MetricsBorder(Border):
    """A border behind which there is a metrics API, too."""

    def __init__(self, client: AioKubeClient) -> None:
        super().__init__(client)
        self.metrics: bytes | None = None

    async def get(self, path: str, *, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 -- the client's
        """Read; without a metrics API the server does not know the path."""
        if path == PATH and self.metrics is not None:
            return self.metrics
        return await super().get(path, timeout=timeout)


class LoadTown:
    """A town of three equal nodes, whose extender looks at CPU use alone."""

    def __init__(self, town: Town, server: FakePrometheus, border: MetricsBorder) -> None:
        self.town = town
        self.server = server
        self.border = border
        self._pods = 0
        load = town.extender.load
        assert load is not None
        self.load = load
        self._running = asyncio.create_task(load.run())

    def says(self, *, age: float = 0.0, **loads: object) -> None:
        """Let Prometheus tell these loads from now on, `age` seconds old whenever it is asked."""

        async def reply(request: Any) -> Any:
            """Answer as of now."""
            told: list[tuple[dict[str, str], object]] = []
            for name, load in loads.items():
                told += [
                    ({"node": name, PART: "value"}, load),
                    ({"node": name, PART: "taken"}, time() - age),
                ]
            return await says(vector(*told, at=time()))(request)

        self.server.reply = reply

    async def chosen(self, **given: Any) -> str:
        """Return the node that a new pod would get."""
        self._pods += 1
        pod = await self.town.pod(f"p{self._pods}", 1, **given)
        answer = await self.town.filter(pod, *NAMES)
        assert answer["Error"] == ""
        (node,) = answer["NodeNames"]
        return str(node)

    async def until_chosen(self, node: str) -> None:
        """Ask until a new pod would get this node."""
        end = asyncio.get_running_loop().time() + 10
        while await self.chosen() != node:
            assert asyncio.get_running_loop().time() < end, f"never {node}"
            # Plans of the pods before would fill the nodes.
            self.town.extender.cluster.expire(float("inf"))

    async def busy_pod(self, name: str, *, cpus: int) -> dict[str, Any]:
        """Create a pod of one GPU that requests so many CPUs."""
        wants = {"limits": {RESOURCE: "1"}, "requests": {"cpu": str(cpus)}}
        return await self.town.pod(name, 1, containers=[{"name": "main", "resources": wants}])

    def report(self, node: str) -> LoadReport:
        """Return what the extender knows of a node's load."""
        told = self.load.report(node)
        assert told is not None
        return told

    def count(self, outcome: str) -> float:
        """Return how many questions came out so."""
        return float(self.load._metrics._queries["prometheus"][outcome]._value.get())

    async def close(self) -> None:
        """Stop everything."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.town.close()


def settings(server: FakePrometheus, **load: Any) -> ExtenderSettings:
    """Return the settings: a round every 20 ms, one profile that looks at load alone."""
    return SETTINGS.model_validate(
        {
            **SETTINGS.model_dump(),
            # Nothing is lost on the way here, and a busy machine must not look like that.
            "bind_timeout_seconds": 4.0,
            "default_profile": "least-cpu",
            "profiles": {"least-cpu": {"weights": {"load": 1}}},
            "load": {
                "prometheus": {"url": server.url, "timeout_seconds": 0.3},
                "refresh_seconds": 0.02,
                "stale_seconds": 60,
                "weights": {"cpu": 1},
                "breaker": {"failures": 2, "first_pause_seconds": 0.05, "last_pause_seconds": 0.1},
                **load,
            },
        }
    )


async def open_town(
    api: ApiServer, client: AioKubeClient, server: FakePrometheus, **load: Any
) -> LoadTown:
    """Open a town of three nodes with 96 CPUs each."""
    border = MetricsBorder(client)
    town = make_town(api, client, settings(server, **load), border)
    await town.open()
    for name in NAMES:
        await town.node(name, mesh(4))
    return LoadTown(town, server, border)


@pytest.fixture
async def loaded(
    api: ApiServer, client: AioKubeClient, prometheus: FakePrometheus
) -> AsyncIterator[LoadTown]:
    """Return a town where n2 is the idlest and n1 the busiest, and Prometheus has said so."""
    made = await open_town(api, client, prometheus)
    made.says(n1=0.9, n2=0.1, n3=0.5)
    await made.town.until(lambda: made.report("n2").load is not None)
    yield made
    await made.close()


async def test_the_idlest_node_wins_and_follows_the_samples(loaded: LoadTown) -> None:
    """Score = 100 - CPU %."""
    assert await loaded.chosen() == "n2"
    loaded.says(n1=0.2, n2=0.6, n3=0.5)
    await loaded.until_chosen("n1")
    (cpu,) = loaded.report("n1").metrics
    assert (cpu.state, cpu.value, cpu.used, cpu.source) == ("fresh", 0.2, 0.2, "prometheus")


async def test_pods_bound_since_the_sample_are_estimated(loaded: LoadTown) -> None:
    """The second pod sees the 48 of 96 CPUs that the first will use, though no sample does."""
    pod = await loaded.busy_pod("big", cpus=48)
    answer = await loaded.town.filter(pod, *NAMES)
    assert answer["NodeNames"] == ["n2"]
    assert await loaded.town.bind(pod, "n2") == ""
    await loaded.town.until(lambda: loaded.report("n2").pods == 1)
    assert await loaded.chosen() == "n3"
    (cpu,) = loaded.report("n2").metrics
    assert (cpu.value, cpu.estimate, cpu.used) == (0.1, 0.5, 0.6)


async def test_pods_that_come_at_once_spread(loaded: LoadTown) -> None:
    """Between two samples the coldest node is another after each of them."""
    loaded.says(n1=0.1, n2=0.1, n3=0.1)
    await loaded.town.until(lambda: loaded.report("n1").load == loaded.report("n3").load == 0.1)
    await loaded.server.stop()
    nodes = []
    for number in range(6):
        pod = await loaded.busy_pod(f"b{number}", cpus=24)
        best = (await loaded.town.filter(pod, *NAMES))["NodeNames"][0]
        before = loaded.report(best).pods
        assert await loaded.town.bind(pod, best) == ""
        await loaded.town.until(lambda: loaded.report(best).pods == before + 1)  # noqa: B023 -- run at once
        nodes.append(best)
    assert nodes == ["n1", "n2", "n3"] * 2


async def test_prometheus_stopped(loaded: LoadTown) -> None:
    """Its last samples count while they are fresh; its return is noticed."""
    await loaded.server.stop()
    await loaded.town.until(lambda: loaded.count("unreachable") >= 2)
    assert await loaded.chosen() == "n2"
    (cpu,) = loaded.report("n2").metrics
    assert (cpu.state, cpu.value, cpu.source) == ("fresh", 0.1, "prometheus")
    await loaded.server.start()
    loaded.says(n1=0.0, n2=0.6, n3=0.5)
    await loaded.until_chosen("n1")


async def test_prometheus_stopped_and_a_metrics_api(loaded: LoadTown) -> None:
    """It takes over when the circuit opens, and the report says so."""
    await loaded.server.stop()
    loaded.border.metrics = node_metrics(
        ("n1", "48", "1Gi"), ("n2", "90", "1Gi"), ("n3", "3", "1Gi"), at=time() + 5
    )
    await loaded.until_chosen("n3")
    (cpu,) = loaded.report("n3").metrics
    assert (cpu.value, cpu.source) == (0.03125, "metrics_api")


async def test_prometheus_hangs(loaded: LoadTown) -> None:
    """While a question waits, decisions do not."""
    loaded.server.reply = hangs
    asked = len(loaded.server.asked)
    await loaded.town.until(lambda: len(loaded.server.asked) > asked)
    assert await loaded.chosen() == "n2"
    await loaded.town.until(lambda: loaded.count("timeout") >= 1)
    assert await loaded.chosen() == "n2"


LIES = [
    ("NaN", {"n1": 0.3, "n2": "NaN", "n3": 0.5}),
    ("infinite", {"n1": 0.3, "n2": "-Inf", "n3": 0.5}),
    ("negative", {"n1": 0.3, "n2": -7, "n3": 0.5}),
    ("percent", {"n1": 0.3, "n2": 10, "n3": 0.5}),
    ("missing", {"n1": 0.3, "n3": 0.5}),
    ("nodes of somebody else", {"n1": 0.3, "x9": 0.0, "n3": 0.5}),
]


@pytest.mark.parametrize(("what", "told"), LIES)
async def test_prometheus_lies_about_a_node(
    api: ApiServer,
    client: AioKubeClient,
    prometheus: FakePrometheus,
    what: str,
    told: dict[str, object],
) -> None:
    """It counts as the mean of the others, and is told as missing."""
    town = await open_town(api, client, prometheus)
    town.says(**told)
    await town.town.until(lambda: town.report("n1").load is not None, what)
    assert await town.chosen() == "n1"
    report = town.report("n2")
    assert report.load is None
    assert [(cpu.state, cpu.used) for cpu in report.metrics] == [("missing", None)]
    await town.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"oops", 500), (b"<html></html>", 200), (b'{"status":"success","data":{"res', 200)],
)
async def test_prometheus_answers_with_nothing_of_use(
    api: ApiServer, client: AioKubeClient, prometheus: FakePrometheus, body: bytes, status: int
) -> None:
    """From the start: every node is as good as another, and the first by name wins."""
    prometheus.reply = says(body, status)
    town = await open_town(api, client, prometheus, metrics_api=False)
    await town.town.until(lambda: len(prometheus.asked) >= 2)
    pod = await town.town.pod("p", 1)
    answer = await town.town.filter(pod, *NAMES)
    assert answer["NodeNames"] == ["n1", "n2", "n3"]
    assert await town.town.bind(pod, "n3") == ""
    await town.close()


async def test_old_samples_are_not_used(
    api: ApiServer, client: AioKubeClient, prometheus: FakePrometheus
) -> None:
    """n2 was idle two minutes ago; nobody knows what it is now, and the report says so."""
    town = await open_town(api, client, prometheus, stale_seconds=100)
    town.says(n1=0.3, n2=0.0, n3=0.5, age=120)
    await town.town.until(lambda: town.report("n2").metrics[0].value is not None)
    pod = await town.town.pod("p", 1)
    assert (await town.town.filter(pod, *NAMES))["NodeNames"] == ["n1", "n2", "n3"]
    (cpu,) = town.report("n2").metrics
    assert (cpu.state, cpu.value, cpu.used) == ("stale", 0.0, None)
    assert cpu.age_seconds == pytest.approx(120, abs=10)
    await town.close()
