"""Pods that samples cannot show yet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scheduler.load.nodes import NodeSize
from scheduler.load.recent import RecentPod, RecentPods, estimate, unseen
from scheduler.load.samples import METRICS
from tests.scheduler.load.answering import NOW, RESOURCE, pod

GIB = 1 << 30


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Watch:
    """Recent pods with a clock, and what does not read."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.problems: list[str] = []
        self.pods = RecentPods(
            RESOURCE, 240.0, self.clock, lambda kind, name, what: self.problems.append(what)
        )


@pytest.fixture
def watch() -> Watch:
    """Return an empty one; it remembers for 240 s."""
    return Watch()


def test_a_bound_pod_counts_from_its_binding_on(watch: Watch) -> None:
    """Its image may take minutes; the sample shows nothing of it."""
    assert watch.pods.take(pod("a", None)) is None
    assert watch.pods.take(pod("a", "n1", cpu="1500m", memory="1Gi", gpus=2)) == "n1"
    assert watch.pods.on("n1") == (RecentPod("n1", 1.5, GIB, 2, None),)
    watch.clock.now += 3600
    watch.pods.forget(watch.clock.now)
    assert len(watch.pods) == 1


def test_it_has_started_when_the_watch_shows_it_running(watch: Watch) -> None:
    """Kubelet's startTime is earlier: it admits before it pulls."""
    watch.pods.take(pod("a", "n1", started=NOW))
    watch.clock.now += 60
    assert watch.pods.take(pod("a", "n1", phase="Running", started=NOW)) == "n1"
    assert watch.pods.on("n1")[0].started == NOW + 60
    watch.clock.now += 60
    assert watch.pods.take(pod("a", "n1", phase="Running", started=NOW)) is None
    assert watch.pods.on("n1")[0].started == NOW + 60


def test_it_is_forgotten_when_every_sample_in_use_shows_it(watch: Watch) -> None:
    """240 s after it started."""
    watch.pods.take(pod("a", "n1"))
    watch.pods.take(pod("a", "n1", phase="Running"))
    watch.pods.forget(NOW + 240)
    assert len(watch.pods) == 1
    watch.pods.forget(NOW + 241)
    assert len(watch.pods) == 0
    assert list(watch.pods.nodes) == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_uses_nothing(watch: Watch, phase: str) -> None:
    """Though the sample may still show it."""
    watch.pods.take(pod("a", "n1"))
    assert watch.pods.take(pod("a", "n1", phase=phase)) == "n1"
    assert watch.pods.on("n1") == ()
    assert watch.pods.drop("a") is None


@pytest.mark.parametrize(
    ("started", "kept"), [(NOW - 10, True), (NOW - 240, True), (NOW - 241, False), (None, False)]
)
def test_running_pods_of_the_first_list_count_by_their_start(
    watch: Watch, started: float | None, kept: bool
) -> None:
    """After a restart of the extender; one whose start is not told has long been there."""
    watch.pods.keep((pod("a", "n1", phase="Running", started=started),))
    assert len(watch.pods) == kept


def test_a_list_replaces_what_was_known(watch: Watch) -> None:
    """Pods that it lacks are gone."""
    watch.pods.keep((pod("a", "n1"), pod("b", "n2")))
    watch.pods.keep((pod("b", "n2"), pod("c", "n3")))
    assert sorted(watch.pods.nodes) == ["n2", "n3"]


def container(name: str, cpu: object, **given: Any) -> dict[str, Any]:
    """Write a container that requests CPUs."""
    return {"name": name, "resources": {"requests": {"cpu": cpu}}, **given}


REQUESTS = [
    ("containers add up", {"containers": [container("a", "1"), container("b", "500m")]}, 1.5),
    (
        "the largest init container alone may be more",
        {
            "initContainers": [container("i", "4"), container("j", "3")],
            "containers": [container("a", "1")],
        },
        4,
    ),
    (
        "a sidecar stays",
        {
            "initContainers": [container("s", "2", restartPolicy="Always")],
            "containers": [container("a", "1")],
        },
        3,
    ),
    (
        "limits stand for requests",
        {"containers": [{"name": "a", "resources": {"limits": {"cpu": "2"}}}]},
        2,
    ),
    ("nothing asked for is nothing", {"containers": [{"name": "a"}]}, 0),
    ("less than nothing is nothing", {"containers": [container("a", "-3")]}, 0),
]


@pytest.mark.parametrize(("what", "spec", "cpu"), REQUESTS)
def test_requests_are_read_as_kubernetes_does(
    watch: Watch, what: str, spec: dict[str, Any], cpu: float
) -> None:
    """CPUs of a pod."""
    watch.pods.take(pod("a", "n1", **spec))
    assert watch.pods.on("n1")[0].cpu == cpu, what


def test_a_request_that_does_not_read_is_told_and_counts_as_nothing(watch: Watch) -> None:
    """The other resources count."""
    watch.pods.take(pod("a", "n1", cpu="some", memory="1Gi"))
    assert watch.pods.on("n1")[0].memory == GIB
    assert watch.problems[0].startswith("cpu: 'some' is not a quantity")


SIZE = NodeSize(cpu=8, memory=32 * GIB, gpus=4)


def of_pod(started: float | None, *, taken: float, window: float = 0.0) -> dict[str, float]:
    """Estimate 2 CPUs, 8 GiB and 4 GPUs on SIZE, all metrics measured alike."""
    count = len(METRICS)
    asked = RecentPod("n1", 2, 8 * GIB, 4, started)
    got = estimate([asked], SIZE, np.full(count, taken), np.full(count, window))
    return dict(zip(METRICS, got.tolist(), strict=True))


def test_the_estimate_is_the_requests_share_of_the_node() -> None:
    """Network and disk are not requested."""
    assert of_pod(None, taken=NOW) == {
        "cpu": 0.25,
        "memory": 0.25,
        "network": 0.0,
        "disk": 0.0,
        "gpu": 1.0,
    }


@pytest.mark.parametrize(
    ("started", "taken", "window", "part"),
    [
        (None, NOW, 0.0, 1.0),
        (None, NOW, 120.0, 1.0),
        (NOW, NOW - 1, 0.0, 1.0),
        (NOW, NOW + 1, 0.0, 0.0),
        (NOW, NOW - 1, 120.0, 1.0),
        (NOW, NOW + 30, 120.0, 0.75),
        (NOW, NOW + 120, 120.0, 0.0),
        (NOW, math.nan, 120.0, 1.0),
    ],
)
def test_a_sample_shows_a_pod_by_and_by(
    started: float | None, taken: float, window: float, part: float
) -> None:
    """A moment's sample at once, an average after a window."""
    assert unseen(started, np.array([taken]), np.array([window])).tolist() == [part]
    assert of_pod(started, taken=taken, window=window)["cpu"] == 0.25 * part


def test_nothing_is_estimated_on_a_node_of_unknown_size() -> None:
    """A share of nothing would be anything; more than the whole is the whole."""
    zero = np.zeros(len(METRICS))
    asked = [RecentPod("n1", 2, GIB, 1, None)]
    assert estimate(asked, NodeSize(), zero, zero).tolist() == [0, 0, 0, 0, 0]
    assert estimate(asked, NodeSize(cpu=1), zero, zero)[0] == 1
