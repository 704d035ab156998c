"""Pods without a node: as the API server tells them, and as pages show them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.objects import Pod
from scheduler.dashboard.waiting import WaitingPods, show_waiting
from tests.scheduler.dashboard.conftest import Visitor
from tests.scheduler.nodes import RESOURCE, mesh, pod_object

REFUSED = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}


def pod(name: str, gpus: int = 1, **given: Any) -> Pod:
    """Make a pod; `conditions` and `deleted` are its status and end."""
    conditions, deleted = given.pop("conditions", []), given.pop("deleted", None)
    made = pod_object(name, gpus, uid=name, **given)
    made["status"]["conditions"] = conditions
    made["metadata"]["deletionTimestamp"] = deleted
    return msgspec.convert(made, Pod)


GONE = [
    ("it has a node", pod("p", node="a")),
    ("it has ended", pod("p", phase="Failed")),
    ("it is being deleted", pod("p", deleted="2026-01-01T00:00:00Z")),
    ("it asks for no GPU", pod("p", 0)),
]


@pytest.mark.parametrize(("why", "after"), GONE, ids=[why for why, _ in GONE])
def test_a_pod_waits_until(why: str, after: Pod) -> None:
    """Then it is forgotten."""
    waiting = WaitingPods(RESOURCE)
    waiting.changed(pod("p"))
    assert len(waiting) == 1
    waiting.changed(after)
    assert len(waiting) == 0, why


def test_the_version_tells_changes_alone() -> None:
    """An event that leaves a pod's line as it is wakes nobody."""
    waiting = WaitingPods(RESOURCE)
    waiting.changed(pod("p"))
    version = waiting.version
    waiting.changed(pod("p"))
    waiting.deleted(pod("other"))
    assert waiting.version == version
    waiting.changed(pod("p", conditions=[REFUSED]))
    assert waiting.version == version + 1


def test_a_complete_list_replaces_everything() -> None:
    """What vanished meanwhile is dropped."""
    waiting = WaitingPods(RESOURCE)
    waiting.changed(pod("p"))
    waiting.listed((pod("q"), pod("r", node="a")))
    assert [one.name for one in waiting.oldest_first()] == ["q"]


def test_a_demand_that_does_not_read_is_the_reason() -> None:
    """Nobody will ever place it, and nobody else says why."""
    waiting = WaitingPods(RESOURCE)
    waiting.changed(pod("p", annotations={"gputopo.dev/min-link": "FAST"}))
    found = waiting.find("default", "p")
    assert found is not None
    assert "gputopo.dev/min-link" in show_waiting(found, None).reason


async def test_a_pod_that_nobody_asked_about_has_a_line_and_a_page(visit: Visitor) -> None:
    """With what kube-scheduler says of it."""
    made = await visit.town.pod("unasked", 16)
    waiting = visit.town.extender.waiting
    await visit.town.until(lambda: len(waiting))
    assert "not tried yet" in await visit.see("/pods")
    assert "No scheduler has tried it yet" in await visit.see("/pods/default/unasked")
    made["status"]["conditions"] = [REFUSED]
    waiting.changed(msgspec.convert(made, Pod))
    assert "0/2 nodes are available" in await visit.see("/pods/default/unasked")


async def test_a_pod_that_we_refused_says_our_reason_and_what_would_help(visit: Visitor) -> None:
    """kube-scheduler's sentence only counts nodes."""
    await visit.town.node("a", mesh(4))
    await visit.place("p", 4, "a")
    await visit.town.filter(await visit.town.pod("q", 3), "a")
    await visit.town.until(lambda: visit.town.extender.waiting.find("default", "q"))
    page = await visit.see("/pods/default/q")
    assert "What would help" in page
    assert "held by default/p" in page
    assert "What it waits for" in page
    assert "kube-scheduler:" not in await visit.see("/pods")
