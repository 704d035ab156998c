"""From samples to one number a node, and its report."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.objects import Node
from scheduler.load.recent import RecentPods
from scheduler.load.report import LoadReport, MetricReport
from scheduler.load.samples import METRICS, Metric, Reading, Sample
from scheduler.load.table import LoadTable
from tests.scheduler.load.answering import NOW, RESOURCE, book, node, pod

ALL = {"cpu": 0.4, "memory": 0.2, "network": 0.1, "disk": 0.1, "gpu": 0.2}
CPU = {"cpu": 1.0}
STALE = 120.0


class Desk:
    """A table over some nodes."""

    def __init__(self, *nodes: Node, weights: Mapping[Metric, float] = CPU) -> None:
        self.nodes = book(*nodes)
        self.pods = RecentPods(RESOURCE, 240.0, lambda: NOW, lambda *_: None)
        self.table = LoadTable(self.nodes, self.pods, weights, STALE)

    def read(
        self, metric: Metric, source: str = "prometheus", now: float = NOW, **samples: Sample
    ) -> None:
        """Take a reading."""
        self.table.take(Reading(metric, source, samples, {}), now)

    def loads(self, now: float = NOW) -> dict[str, float | None]:
        """Settle."""
        names, loads = self.table.settle(now)
        return {
            name: None if math.isnan(load) else round(load, 9)
            for name, load in zip(names, loads.tolist(), strict=True)
        }

    def report(self, name: str, now: float = NOW) -> LoadReport:
        """Report on a node that is there."""
        told = self.table.report(name, now)
        assert told is not None
        return told


def test_without_samples_nothing_is_known() -> None:
    """NaN, not idle."""
    desk = Desk(node("n1"), node("n2"))
    assert desk.loads() == {"n1": None, "n2": None}
    assert Desk().loads() == {}


def test_metrics_are_weighed() -> None:
    """By the ratios of their weights."""
    desk = Desk(node("n1"), weights={"cpu": 3.0, "memory": 1.0})
    desk.read("cpu", n1=Sample(0.8, NOW))
    desk.read("memory", n1=Sample(0.4, NOW))
    assert desk.loads() == {"n1": 0.7}


def test_a_metric_that_one_node_lacks_counts_as_the_others_mean() -> None:
    """Neither as idle nor as full: n3 has no CPU sample, and gets 0.5 for it."""
    desk = Desk(node("n1"), node("n2"), node("n3"), weights={"cpu": 1.0, "memory": 1.0})
    desk.read("cpu", n1=Sample(0.2, NOW), n2=Sample(0.8, NOW))
    desk.read("memory", n1=Sample(0.4, NOW), n2=Sample(0.4, NOW), n3=Sample(0.1, NOW))
    assert desk.loads() == {"n1": 0.3, "n2": 0.6, "n3": 0.3}


def test_a_metric_that_all_lack_is_left_out() -> None:
    """Its weight goes to the others: no GPUs, no dcgm-exporter."""
    desk = Desk(node("n1"), node("n2"), weights=ALL)
    desk.read("cpu", n1=Sample(0.2, NOW), n2=Sample(0.8, NOW))
    assert desk.loads() == {"n1": 0.2, "n2": 0.8}
    assert [metric.share for metric in desk.report("n1").metrics] == [1, 0, 0, 0, 0]


def test_a_metric_without_weight_does_not_count() -> None:
    """Nor does it make a node known."""
    desk = Desk(node("n1"))
    desk.read("memory", n1=Sample(0.9, NOW))
    assert desk.loads() == {"n1": None}
    desk.read("cpu", n1=Sample(0.1, NOW))
    assert desk.loads() == {"n1": 0.1}


def test_a_sample_ages_until_it_is_not_used() -> None:
    """Without any answer: rounds go on."""
    desk = Desk(node("n1"), node("n2"))
    desk.read("cpu", n1=Sample(0.2, NOW - 100), n2=Sample(0.4, NOW))
    assert desk.loads(NOW + 20) == {"n1": 0.2, "n2": 0.4}
    assert desk.loads(NOW + 21) == {"n1": None, "n2": 0.4}
    assert desk.loads(NOW + 121) == {"n1": None, "n2": None}


def test_the_newest_sample_counts_whoever_brought_it() -> None:
    """An answer that was late, or a cache of a server, does not turn time back."""
    desk = Desk(node("n1"))
    desk.read("cpu", n1=Sample(0.2, NOW - 5))
    desk.read("cpu", n1=Sample(0.9, NOW - 50))
    assert desk.loads() == {"n1": 0.2}
    desk.read("cpu", source="metrics_api", n1=Sample(0.3, NOW))
    assert desk.loads() == {"n1": 0.3}
    assert desk.report("n1").metrics[0].source == "metrics_api"


def test_a_clock_that_is_set_back_does_not_freeze_the_samples() -> None:
    """What was taken an hour ahead is not used, and the next sample replaces it."""
    desk = Desk(node("n1"))
    desk.read("cpu", n1=Sample(0.2, NOW), now=NOW)
    earlier = NOW - 3600
    assert desk.loads(earlier) == {"n1": None}
    desk.read("cpu", n1=Sample(0.7, earlier), now=earlier)
    assert desk.loads(earlier) == {"n1": 0.7}


def test_nodes_come_and_go() -> None:
    """Samples stay with their names, whatever rows they had."""
    desk = Desk(node("b"), node("c"))
    desk.read("cpu", b=Sample(0.2, NOW), c=Sample(0.4, NOW))
    desk.nodes.take(node("a"))
    assert desk.loads() == {"a": None, "b": 0.2, "c": 0.4}
    desk.nodes.drop("b")
    assert desk.loads() == {"a": None, "c": 0.4}
    desk.read("cpu", a=Sample(0.1, NOW), b=Sample(0.5, NOW))
    assert desk.loads() == {"a": 0.1, "c": 0.4}
    desk.nodes.take(node("b"))
    assert desk.loads() == {"a": 0.1, "b": None, "c": 0.4}


def test_a_reading_of_nodes_that_are_all_gone_changes_nothing() -> None:
    """They went while the answer was on its way."""
    desk = Desk(node("n1"))
    desk.read("cpu", n9=Sample(0.5, NOW))
    assert desk.loads() == {"n1": None}


def test_pods_that_the_sample_cannot_show_are_added() -> None:
    """Two of eight CPUs on a node that is a half busy; never more than full."""
    desk = Desk(node("n1", cpu="8"), node("n2", cpu="8"))
    desk.read("cpu", n1=Sample(0.5, NOW), n2=Sample(0.5, NOW))
    desk.pods.take(pod("a", "n1", cpu=2))
    desk.pods.take(pod("b", "n9", cpu=2))
    assert desk.loads() == {"n1": 0.75, "n2": 0.5}
    desk.pods.take(pod("c", "n1", cpu=80))
    assert desk.loads() == {"n1": 1.0, "n2": 0.5}


def test_a_metric_is_never_more_than_full() -> None:
    """However much is requested: the other metrics keep their weight."""
    desk = Desk(node("n1", cpu="8"), weights={"cpu": 1.0, "disk": 1.0})
    desk.read("cpu", n1=Sample(0.5, NOW))
    desk.read("disk", n1=Sample(0.2, NOW))
    desk.pods.take(pod("a", "n1", cpu=80))
    assert desk.loads() == {"n1": 0.6}


def test_a_newer_sample_shows_the_pod() -> None:
    """Then nothing is estimated for it."""
    desk = Desk(node("n1", cpu="8"))
    desk.read("cpu", n1=Sample(0.5, NOW - 1))
    desk.pods.take(pod("a", "n1", cpu=2))
    desk.pods.take(pod("a", "n1", cpu=2, phase="Running"))
    assert desk.loads() == {"n1": 0.75}
    desk.read("cpu", n1=Sample(0.6, NOW + 1), now=NOW + 1)
    assert desk.loads(NOW + 1) == {"n1": 0.6}


def test_one_nodes_load_is_that_of_the_whole_table() -> None:
    """What a binding changes at once is what the next round would say, the others' mean apart."""
    desk = Desk(node("n1", cpu="8"), node("n2", cpu="8"))
    desk.read("cpu", n1=Sample(0.5, NOW), n2=Sample(0.1, NOW))
    desk.loads()
    desk.pods.take(pod("a", "n1", cpu=2))
    assert desk.table.load_of("n1", NOW) == 0.75
    assert desk.loads()["n1"] == 0.75
    assert desk.table.load_of("n9", NOW) is None
    assert math.isnan(desk.table.load_of("n2", NOW + 500) or 0)


def test_a_report_says_what_was_used() -> None:
    """Value, age, source and estimate; what stands for a stale and a missing one."""
    weights: dict[Metric, float] = {"cpu": 2.0, "memory": 1.0, "disk": 1.0, "network": 1.0}
    desk = Desk(node("n1", cpu="8"), node("n2"), weights=weights)
    desk.read("cpu", n1=Sample(0.5, NOW - 10, 120.0), n2=Sample(0.1, NOW))
    desk.read("memory", n1=Sample(0.9, NOW - 300), n2=Sample(0.2, NOW))
    desk.read("disk", n2=Sample(0.4, NOW))
    desk.pods.take(pod("a", "n1", cpu=2))
    desk.loads()
    assert desk.report("n1") == LoadReport(
        node="n1",
        at=NOW,
        load=pytest.approx((2 * 0.75 + 0.2 + 0.4) / 4),
        pods=1,
        metrics=(
            MetricReport("cpu", 0.5, "fresh", 0.5, 10.0, "prometheus", 0.25, 0.75),
            MetricReport("memory", 0.25, "stale", 0.9, 300.0, "prometheus", 0.0, 0.2),
            MetricReport("network", 0.0, "missing"),
            MetricReport("disk", 0.25, "missing", used=0.4),
        ),
    )
    assert desk.table.report("n9", NOW) is None


def test_a_report_on_a_node_of_which_nothing_is_known_uses_nothing() -> None:
    """Its load is None, though others have samples."""
    desk = Desk(node("n1"), node("n2"))
    desk.read("cpu", n2=Sample(0.1, NOW))
    desk.loads()
    told = desk.report("n1")
    assert told.load is None
    assert told.metrics == (MetricReport("cpu", 1.0, "missing"),)


def test_coverage_counts_samples_in_use() -> None:
    """By metric: how many nodes, and the oldest age."""
    desk = Desk(node("n1"), node("n2"), weights={"cpu": 1.0, "disk": 1.0})
    desk.read("cpu", n1=Sample(0.5, NOW - 7), n2=Sample(0.1, NOW - 500))
    assert desk.table.covered(NOW) == {"cpu": (1, 7.0), "disk": (0, 0.0)}


SAMPLES = st.dictionaries(
    st.sampled_from(METRICS),
    st.dictionaries(
        st.sampled_from(["n1", "n2", "n3"]),
        st.builds(Sample, st.floats(0, 1), st.floats(NOW - 300, NOW), st.floats(0, 120)),
    ),
)


def oracle(
    samples: Mapping[Metric, Mapping[str, Sample]], weights: Mapping[Metric, float]
) -> dict[str, float | None]:
    """Say the rule once more, node by node."""
    fresh = {
        metric: {name: s.value for name, s in by_node.items() if NOW - s.taken <= STALE}
        for metric, by_node in samples.items()
        if weights.get(metric, 0) > 0
    }
    fresh = {metric: by_node for metric, by_node in fresh.items() if by_node}
    whole = sum(weights[metric] for metric in fresh)
    loads: dict[str, float | None] = {}
    for name in ("n1", "n2", "n3"):
        if not any(name in by_node for by_node in fresh.values()):
            loads[name] = None
            continue
        loads[name] = (
            sum(
                weights[metric] * by_node.get(name, sum(by_node.values()) / len(by_node))
                for metric, by_node in fresh.items()
            )
            / whole
        )
    return loads


@given(SAMPLES, st.dictionaries(st.sampled_from(METRICS), st.sampled_from([0.0, 0.5, 1.0, 7.0])))
def test_the_columns_equal_a_slow_oracle(
    samples: dict[Metric, dict[str, Sample]], weights: dict[Metric, float]
) -> None:
    """Whatever is known of whom; and a load lies in 0 to 1."""
    desk = Desk(node("n1"), node("n2"), node("n3"), weights=weights)
    for metric, by_node in samples.items():
        desk.read(metric, **by_node)
    names, loads = desk.table.settle(NOW)
    want = oracle(samples, weights)
    for name, load in zip(names, loads.tolist(), strict=True):
        expected = want[name]
        if expected is None:
            assert math.isnan(load)
        else:
            assert load == pytest.approx(expected)
            assert 0 <= load <= 1
        told = desk.report(name)
        assert told.load == (None if math.isnan(load) else pytest.approx(load))
        if told.load is not None:
            parts = [metric.share * (metric.used or 0) for metric in told.metrics]
            assert sum(parts) == pytest.approx(told.load)
        assert np.isnan(load) or desk.table.load_of(name, NOW) == pytest.approx(load)
