"""Which pod is asking, what it was promised, and what others were."""

from __future__ import annotations

import pytest

from deviceplugin.admission.allocation import Wanted
from deviceplugin.admission.asking import (
    Asking,
    Identified,
    identify,
    identify_blindly,
    live_holders,
    promised_uuids,
    read_wanted,
    requested,
)
from deviceplugin.outcomes import Drift
from deviceplugin.pods.holdings import Holdings
from runtime.objects import Container, Pod, Resources
from tests.deviceplugin.nodes import RESOURCE, by_key, holdings, names, pod

NONE: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("kubelet", "pods", "size", "asking"),
    [
        pytest.param(holdings(a={"c0": NONE}), [pod("a", 2)], 2, ("d/a", "c0"), id="the-only-pod"),
        pytest.param(
            holdings(a={"c0": names(0, 1)}, b={"c0": NONE}),
            [pod("a", 2), pod("b", 2)],
            2,
            ("d/b", "c0"),
            id="equal-sizes-one-admitted",
        ),
        pytest.param(
            holdings(a={"c0": NONE}, b={"c0": NONE}),
            [pod("a", 2), pod("b", 0)],
            2,
            ("d/a", "c0"),
            id="pods-without-gpus-do-not-count",
        ),
        pytest.param(
            holdings(a={"c0": NONE}, old={"c0": NONE}),
            [pod("a", 2), pod("old", 2, phase="Running")],
            2,
            ("d/a", "c0"),
            id="admitted-before-the-resource-existed",
        ),
        pytest.param(
            holdings(a={"c0": NONE}, old={"c0": NONE}),
            [pod("a", 2), pod("old", 4)],
            2,
            ("d/a", "c0"),
            id="another-size",
        ),
        pytest.param(
            holdings(a={"c0": names(0), "c1": NONE, "c2": NONE}),
            [pod("a", 1, 3, 3)],
            3,
            ("d/a", "c1"),
            id="second-container",
        ),
        pytest.param(
            holdings(a={"c0": NONE, "c1": NONE}),
            [pod("a", 0, 3)],
            3,
            ("d/a", "c1"),
            id="first-container-without-request",
        ),
        pytest.param(
            holdings(a={"s0": NONE, "c0": NONE}),
            [pod("a", 2, sidecars=(2,))],
            2,
            ("d/a", "s0"),
            id="sidecar-comes-first",
        ),
        pytest.param(
            holdings(a={"c0": NONE}),
            [pod("a", 2), pod("later", 2)],
            2,
            ("d/a", "c0"),
            id="not-yet-in-kubelets-books",
        ),
    ],
)
def test_the_pod_in_admission_is_recognised(
    kubelet: Holdings, pods: list[Pod], size: int, asking: tuple[str, str]
) -> None:
    """One pending pod in kubelet's books waits with a container of that size: it is asking."""
    who = identify(kubelet, by_key(*pods), RESOURCE, size).asking
    assert who is not None
    assert asking == (who.pod.key, who.container)


@pytest.mark.parametrize(
    ("kubelet", "pods", "expected"),
    [
        pytest.param(
            holdings(a={"c0": NONE}, b={"c0": NONE}),
            [pod("a", 2), pod("b", 2)],
            Identified(None, Drift.AMBIGUOUS_POD, frozenset({"d/a", "d/b"})),
            id="two-alike",
        ),
        pytest.param(Holdings(), [pod("a", 2)], Identified(None, Drift.NO_POD), id="empty-books"),
        pytest.param(
            holdings(a={"c0": names(0, 1)}),
            [pod("a", 2)],
            Identified(None, Drift.NO_POD),
            id="nobody-waits",
        ),
        pytest.param(
            holdings(a={"c0": NONE, "c1": NONE}),
            [pod("a", 1, 2)],
            Identified(None, Drift.NO_POD, unseen=("d/a",)),
            id="containers-come-in-order",
        ),
        pytest.param(
            holdings(new={"c0": NONE}),
            [],
            Identified(None, Drift.NO_POD, unseen=("d/new",)),
            id="the-watch-lags",
        ),
        pytest.param(
            holdings(a={"c0": NONE}),
            [pod("a", 2, phase="Succeeded")],
            Identified(None, Drift.NO_POD, unseen=("d/a",)),
            id="a-namesake-of-before",
        ),
        pytest.param(
            holdings(a={"c0": NONE}),
            [pod("a", 4, phase="Running")],
            Identified(None, Drift.NO_POD, unseen=("d/a",)),
            id="a-namesake-of-another-size",
        ),
    ],
)
def test_nobody_is_named_without_certainty(
    kubelet: Holdings, pods: list[Pod], expected: Identified
) -> None:
    """No candidate or several means no identity; whoever may be asking is named."""
    assert expected == identify(kubelet, by_key(*pods), RESOURCE, 2)


def test_without_kubelets_books_nobody_is_guessed() -> None:
    """When PodResources is silent even a single candidate is no identity, but it is known."""
    pods = by_key(pod("a", 2), pod("b", 4), pod("c", 2, phase="Running"), pod("e", 2))
    last = holdings(e={"c0": names(0, 1)})
    expected = Identified(None, Drift.POD_RESOURCES, frozenset({"d/a"}))
    assert expected == identify_blindly(last, pods, RESOURCE, 2)


@pytest.mark.parametrize(
    ("asking", "expected"),
    [
        pytest.param(pod("a", 2, promised={"c0": names(1, 2)}), Wanted(names(1, 2)), id="its-set"),
        pytest.param(pod("a", 2), Wanted(), id="another-scheduler"),
        pytest.param(
            pod("a", 2, annotation='{"v":1,"containers":{"c0":["g1"', strict=True),
            Wanted(None, Drift.BROKEN_ANNOTATION, strict=True),
            id="truncated",
        ),
        pytest.param(
            pod("a", 2, annotation='{"v":99}'), Wanted(None, Drift.BROKEN_ANNOTATION), id="version"
        ),
        pytest.param(
            pod("a", 2, promised={"other": names(1, 2)}),
            Wanted(None, Drift.CONTAINER_MISSING),
            id="no-such-container",
        ),
        pytest.param(
            pod("a", 2, promised={"c0": ("g1", "gX")}),
            Wanted(("g1", "gX"), Drift.BROKEN_ANNOTATION),
            id="unknown-gpu",
        ),
    ],
)
def test_what_the_asking_pod_was_promised(asking: Pod, expected: Wanted) -> None:
    """The annotation gives the container's set; a broken one counts as absent and is named."""
    assert expected == read_wanted(Asking(asking, "c0"), names(*range(8)))


def test_promises_of_containers_that_still_wait_are_known() -> None:
    """Promised is what pending pods were bound with, without what they hold or ask for now."""
    asking = pod("asking", 1, 1, promised={"c0": names(7), "c1": names(8)})
    pods = by_key(
        pod("waits", 2, promised={"c0": names(0, 1)}),
        pod("half", 1, 1, promised={"c0": names(2), "c1": names(3)}),
        pod("runs", 1, promised={"c0": names(4)}, phase="Running"),
        pod("ended", 1, promised={"c0": names(5)}, phase="Failed"),
        pod("dying", 1, promised={"c0": names(6)}, deleted=True),
        asking,
        pod("broken", 1, annotation="{"),
    )
    kubelet = holdings(half={"c0": names(2), "c1": NONE}, asking={"c0": NONE, "c1": NONE})
    promised = promised_uuids(pods, kubelet, asking=Asking(asking, "c0"))
    assert promised == frozenset(names(0, 1, 3, 8))
    promised = promised_uuids(pods, kubelet, asking=None, candidates={"d/asking", "d/half"})
    assert promised == frozenset(names(0, 1))


def test_a_pod_that_has_ended_holds_nothing() -> None:
    """Kubelet frees lazily; the watch knows better."""
    pods = by_key(pod("ended", 1, phase="Succeeded"), pod("alive", 1, phase="Running"))
    kubelet = holdings(
        ended={"c0": names(0)}, alive={"c0": names(1)}, static={"c0": names(2)}, me={"c0": names(3)}
    )
    expected = {"g1": "d/alive", "g2": "d/static"}
    assert expected == live_holders(kubelet, pods, besides={"d/me"})


@pytest.mark.parametrize(
    ("limits", "count"),
    [({RESOURCE: "4"}, 4), ({RESOURCE: 2}, 2), ({}, 0), (None, 0), ({RESOURCE: "many"}, 0)],
)
def test_a_request_is_read_from_limits(
    limits: dict[str, str | int | float] | None, count: int
) -> None:
    """A limit alone is a request; nonsense requests nothing."""
    assert count == requested(Container(name="c", resources=Resources(limits=limits)), RESOURCE)


def test_a_request_alone_counts() -> None:
    """A container without limits is read by its requests, one without resources asks nothing."""
    only = Container(name="c", resources=Resources(requests={RESOURCE: "3"}))
    assert (requested(only, RESOURCE), requested(Container(name="c"), RESOURCE)) == (3, 0)
