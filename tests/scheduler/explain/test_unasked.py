"""Pods without a node: as the API server tells them, and as pages show them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtime.objects import Pod
from scheduler.explain.unasked import WaitingPods, show_waiting
from tests.scheduler.explain.conftest import Asker
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


async def test_the_api_tells_of_a_pod_that_nobody_asked_about(ask: Asker) -> None:
    """Among those that wait, after those that we decided on; there is no decision to be shown."""
    town = ask.town
    await town.node("a", mesh(4))
    await ask.place("bound", 2, "a")
    await town.filter(await town.pod("refused", 5), "a")
    made = await town.pod("unasked", 16)
    waiting = town.extender.waiting
    await town.until(lambda: len(waiting) == 2)
    made["status"]["conditions"] = [REFUSED]
    waiting.changed(msgspec.convert(made, Pod))
    pending = await ask.get("/v1/pods?outcome=pending")
    assert [(one["name"], one["outcome"]) for one in pending] == [
        ("refused", "refused"),
        ("unasked", "waiting"),
    ]
    assert pending[1]["reason"] == "kube-scheduler: 0/2 nodes are available"
    assert (pending[1]["gpus"], pending[1]["attempts"]) == (16, 0)
    assert await ask.get("/v1/pods?outcome=waiting") == pending[1:]
    assert len(await ask.get("/v1/pods?outcome=pending&limit=1")) == 1
    assert {one["name"] for one in await ask.get("/v1/pods")} == {"bound", "refused"}
    for view in ("", "/scores", "/strategies"):
        told = await ask.get(f"/v1/pods/default/unasked{view}", 404)
        assert told["error"] == (
            "pod default/unasked: waits, and gputopo was not asked about it: "
            "kube-scheduler: 0/2 nodes are available"
        )
