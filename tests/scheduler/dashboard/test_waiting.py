"""Pods without a node on pages: with our reason, or kube-scheduler's where it did not ask us."""

from __future__ import annotations

import msgspec

from runtime.objects import Pod
from tests.scheduler.dashboard.conftest import Visitor
from tests.scheduler.nodes import mesh

REFUSED = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}


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
