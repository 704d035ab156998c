"""Load from a real Prometheus over real node-exporters, up to the extender's choice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.objects import Node
from scheduler.load.nodes import NodeBook
from scheduler.load.queries import DEFAULT_QUERIES, NODE_LABELS
from scheduler.load.samples import METRICS, Metric, Reading
from scheduler.load.settings import PrometheusSettings
from scheduler.load.sources import PrometheusSource
from tests.e2e.prometheus import Exporter, Prometheus
from tests.waiting import wait_until

RESOURCE = "nvidia.com/gpu"
NAMES = ("n1", "n2", "n3")

BLANK = 9223372036854775794
"""What DCGM says where a GPU cannot tell."""


def dcgm(node: str, *percent: int) -> str:
    """Say what a node's dcgm-exporter would of its GPUs."""
    lines = [
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="{gpu}",UUID="GPU-{node}-{gpu}",device="nvidia{gpu}",'
        f'modelName="NVIDIA A100-SXM4-40GB",Hostname="{node}"}} {busy}'
        for gpu, busy in enumerate(percent)
    ]
    return "\n".join(["# TYPE DCGM_FI_DEV_GPU_UTIL gauge", *lines, ""])


class Site:
    """Three nodes: each has a node-exporter, and one that says what dcgm-exporter would."""

    def __init__(self, folder: Path) -> None:
        # One is named by a label of the scrape, one by its instance, one by its address alone.
        labels = {"n1": {"node": "n1"}, "n2": {"instance": "n2:9100"}, "n3": {}}
        self.nodes = {name: Exporter(folder, name, labels[name]) for name in NAMES}
        self.gpus = {
            name: Exporter(folder, f"{name}-gpus", {}, dcgm(name, 90, 10)) for name in NAMES
        }
        jobs = {
            **{f"node-{name}": exporter for name, exporter in self.nodes.items()},
            **{f"dcgm-{name}": exporter for name, exporter in self.gpus.items()},
        }
        self.prometheus = Prometheus(folder, jobs)

    def start(self) -> None:
        """Start everything, and wait until every rate has its two scrapes."""
        for exporter in (*self.nodes.values(), *self.gpus.values()):
            exporter.start()
        self.prometheus.start()
        wait_until(
            lambda: len(self.prometheus.ask("rate(node_time_seconds[1m])")) == len(NAMES),
            60,
            "two scrapes of every node",
        )
        wait_until(lambda: len(self.prometheus.ask("DCGM_FI_DEV_GPU_UTIL")) == 6, 60, "the GPUs")

    def stop(self) -> None:
        """Stop everything."""
        self.prometheus.process.stop()
        for exporter in (*self.nodes.values(), *self.gpus.values()):
            exporter.process.stop()


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """Return three nodes and their Prometheus."""
    made = Site(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def book() -> NodeBook:
    """Return the nodes as the API server would tell of them."""
    nodes = NodeBook(RESOURCE, NODE_LABELS, lambda *told: pytest.fail(str(told)))
    for name in NAMES:
        address = {"n3": "127.0.0.1"}.get(name, f"10.0.0.{name[1:]}")
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        nodes.take(msgspec.convert({"metadata": {"name": name}, "status": status}, Node))
    return nodes


class Asker:
    """Asks the default queries."""

    def __init__(self, url: str) -> None:
        self.source = PrometheusSource(PrometheusSettings(url=url), DEFAULT_QUERIES)

    async def __call__(self, metric: Metric) -> Reading:
        """Ask for one metric; it must be answered."""
        question = list(DEFAULT_QUERIES).index(metric)
        asked = await self.source.ask(question, book(), time.time())
        assert asked.outcome == "ok", asked.problem
        return asked.readings[0]


@pytest.fixture
async def ask(site: Site) -> AsyncIterator[Asker]:
    """Return an asker; its connections are closed at the end."""
    asker = Asker(site.prometheus.url)
    yield asker
    await asker.source.close()


def memory_in_use() -> float:
    """Return what the kernel says."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    amounts = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1 - amounts["MemAvailable"] / amounts["MemTotal"]


@pytest.mark.parametrize("metric", METRICS)
async def test_every_default_query_is_understood(ask: Asker, metric: Metric) -> None:
    """Nothing is refused, and whatever is told is a share with the time of a scrape."""
    reading = await ask(metric)
    assert not reading.faults, reading.example
    for sample in reading.samples.values():
        assert 0 <= sample.value <= 1
        assert sample.taken <= time.time()


@pytest.mark.parametrize("metric", ["cpu", "memory", "gpu"])
async def test_every_node_is_found(ask: Asker, metric: Metric) -> None:
    """By label, by instance, by address, by Hostname."""
    assert set((await ask(metric)).samples) == set(NAMES)


async def test_memory_is_what_the_kernel_says(ask: Asker) -> None:
    """The three exporters see one machine."""
    for sample in (await ask("memory")).samples.values():
        assert sample.value == pytest.approx(memory_in_use(), abs=0.1)


async def test_gpus_that_cannot_tell_are_left_out(site: Site, ask: Asker) -> None:
    """The others' mean counts."""
    site.gpus["n1"].show(dcgm("n1", 90, 10, BLANK))
    wait_until(lambda: len(site.prometheus.ask('DCGM_FI_DEV_GPU_UTIL{Hostname="n1"}')) == 3, 30)
    reading = await ask("gpu")
    site.gpus["n1"].show(dcgm("n1", 90, 10))
    assert reading.samples["n1"].value == 0.5
    assert not reading.faults


async def test_an_exporter_that_hangs_is_known_by_the_age_of_its_samples(
    site: Site, ask: Asker
) -> None:
    """An average lives on for minutes after its last scrape; it must not look new."""
    before = (await ask("cpu")).samples["n2"]
    exporter = site.nodes["n2"].process
    exporter.pause()
    try:
        told = 'up{instance="n2:9100"} == 0'
        wait_until(lambda: site.prometheus.ask(told), 30, "a failed scrape")
        after = (await ask("cpu")).samples
        assert after["n2"].taken < before.taken
        assert after["n1"].taken > before.taken
        assert "n2" not in (await ask("memory")).samples
    finally:
        exporter.resume()
    wait_until(lambda: site.prometheus.ask('up{instance="n2:9100"} == 1'), 30, "a scrape")
