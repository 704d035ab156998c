"""Pods as Kubernetes writes them -> what the engine is asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.objects import Pod
from scheduler.engine.request import ContainerRequest, Demand
from scheduler.errors import DemandError
from scheduler.kube.pods import read_request, wants_gpus
from tests.scheduler.nodes import RESOURCE, container, pod_object
from topology.demands import MinLink, parse_min_link


def pod(*args: Any, **given: Any) -> Pod:
    """Make a Pod struct."""
    return msgspec.convert(pod_object(*args, **given), Pod)


def test_a_pod_without_gpus_is_nobodys_business() -> None:
    """It is no request at all."""
    assert read_request(pod("p", 0), RESOURCE) is None
    assert not wants_gpus(pod("p", 0), RESOURCE)


def test_containers_are_listed_in_kubelets_order() -> None:
    """Sidecars first, containers without GPUs left out."""
    request = read_request(
        pod(
            "p",
            uid="u",
            initContainers=[container("side", 1, restartPolicy="Always"), container("init", 0)],
            containers=[container("b", 2), container("none", 0), container("a", 3)],
        ),
        RESOURCE,
    )
    assert request is not None
    assert request.containers == (
        ContainerRequest("side", 1),
        ContainerRequest("b", 2),
        ContainerRequest("a", 3),
    )
    assert request.demand == Demand(6)


def test_init_containers_stand_apart() -> None:
    """Their GPUs are handed on, so they do not add to the total."""
    request = read_request(pod("p", 2, initContainers=[container("init", 2)]), RESOURCE)
    assert request is not None
    assert request.init == (ContainerRequest("init", 2),)
    assert request.demand.count == 2


SIDE = container("side", 2, restartPolicy="Always")
INIT = container("init", 2)


def test_a_sidecar_takes_the_gpus_of_init_containers_before_it() -> None:
    """Kubelet hands on what has ended, so one set is enough."""
    request = read_request(pod("p", 0, initContainers=[INIT, SIDE]), RESOURCE)
    assert request is not None
    assert request.containers == (ContainerRequest("side", 2),)
    assert request.init == (ContainerRequest("init", 2),)


IMPOSSIBLE = [
    ("a sidecar keeps its GPUs: the init container after it gets others", [SIDE, INIT]),
    ("only init containers, whose GPUs no read-back ever shows", [INIT]),
]


@pytest.mark.parametrize("init", [row[1] for row in IMPOSSIBLE], ids=[row[0] for row in IMPOSSIBLE])
def test_init_containers_whose_gpus_nobody_could_name_are_refused(
    init: list[dict[str, Any]],
) -> None:
    """The text names the init container, and nothing that changes."""
    with pytest.raises(DemandError) as caught:
        read_request(pod("p", 0, initContainers=init), RESOURCE)
    assert caught.value.key == "init container init"


def test_every_demand_is_read() -> None:
    """Annotations, priority and preemption policy reach the request."""
    request = read_request(
        pod(
            "p",
            2,
            annotations={
                "gputopo.dev/profile": "pack",
                "gputopo.dev/min-link": "NV",
                "gputopo.dev/gpu-model": "*H100*, *A100*",
                "gputopo.dev/gpu-memory": "40Gi",
                "gputopo.dev/strict": "true",
            },
            priority=7,
            preemptionPolicy="Never",
        ),
        RESOURCE,
    )
    assert request is not None
    assert request.demand == Demand(
        2, models=("*A100*", "*H100*"), memory_mib=40960, min_link=parse_min_link("NV"), strict=True
    )
    assert isinstance(request.demand.min_link, MinLink)
    assert (request.profile, request.priority, request.preempts) == ("pack", 7, False)


MISTAKES = [
    ({"gputopo.dev/min-link": "NV99"}, "gputopo.dev/min-link: 'NV99'"),
    ({"gputopo.dev/gpu-model": " , "}, "gputopo.dev/gpu-model: names no model"),
    (
        {"gputopo.dev/gpu-model": ",".join(map(str, range(33)))},
        "gputopo.dev/gpu-model: more than 32",
    ),
    ({"gputopo.dev/gpu-model": "A100," + "*" * 129}, "gputopo.dev/gpu-model: a pattern is longer"),
    ({"gputopo.dev/gpu-memory": "much"}, "gputopo.dev/gpu-memory: 'much' is not a quantity"),
    ({"gputopo.dev/gpu-memory": "-1Gi"}, "gputopo.dev/gpu-memory: '-1Gi' is less than nothing"),
    ({"gputopo.dev/strict": "yes"}, "gputopo.dev/strict: 'yes' is neither"),
]


@pytest.mark.parametrize(("annotations", "problem"), MISTAKES)
def test_a_demand_that_does_not_read_is_named(annotations: dict[str, str], problem: str) -> None:
    """The error starts with the annotation's key and repeats the value."""
    with pytest.raises(DemandError) as caught:
        read_request(pod("p", 1, annotations=annotations), RESOURCE)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("count", ["1.5", "500m", "-1", "lots", "65"])
def test_a_count_that_cannot_be_is_named(count: str) -> None:
    """GPUs are whole, not negative, and at most 64."""
    broken = pod("p", count)
    assert wants_gpus(broken, RESOURCE) or count == "-1"
    with pytest.raises(DemandError):
        read_request(broken, RESOURCE)
