"""A town whose pages are looked at over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest

from scheduler.dashboard import routes
from scheduler.dashboard.feed import Feed
from scheduler.dashboard.pages import Sources
from scheduler.explain import app
from scheduler.explain.access import Access
from tests.scheduler.conftest import Town

ACCESS = Access()
"""Who comes over the loopback is let in."""


def make_feed(town: Town, **given: float) -> Feed:
    """Make a feed of a town."""
    extender = town.extender
    return Feed(extender.desk, extender.store, extender.waiting, **given)


def sources_of(town: Town, feed: Feed) -> Sources:
    """Return what a town's pages show."""
    extender = town.extender
    return Sources(extender.desk, extender.store, extender.waiting, feed)


class Visitor:
    """Visits the pages of a town."""

    def __init__(self, town: Town) -> None:
        self.town = town
        extender = town.extender
        self.feed = make_feed(town)
        self.app = routes.build(
            sources_of(town, self.feed), app.build(extender.desk, ACCESS), ACCESS
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://localhost"
        )

    async def see(self, path: str, status: int = 200) -> str:
        """Ask for a page of this status, and check that it is well-formed."""
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        check(answer.text)
        return answer.text

    async def place(self, name: str, count: int, *nodes: str, **given: Any) -> dict[str, Any]:
        """Create a pod, filter it over these nodes and bind it to the first that is answered."""
        pod = await self.town.pod(name, count, **given)
        accepted = (await self.town.filter(pod, *nodes))["NodeNames"]
        assert await self.town.bind(pod, accepted[0]) == ""
        return pod


class _Checker(HTMLParser):
    """Notes elements left open, ids given twice, and whatever would run or style inline."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(str(given["id"]))
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.problems.append(f"<{tag} {name}>")
            if name in {"href", "src"} and re.match(r"\s*(\w+:|//)", str(value)):
                self.problems.append(f"<{tag} {name}={value}>")
        if tag == "script" and "src" not in given and given.get("type") != "application/json":
            self.problems.append("an inline script")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")


def check(text: str) -> None:
    """Assert that a page is well-formed and that the content policy has nothing to stop."""
    checker = _Checker()
    checker.feed(text)
    checker.close()
    assert (checker.problems, checker.open) == ([], [])
    assert len(checker.ids) == len(set(checker.ids))


@pytest.fixture
async def visit(town: Town) -> AsyncIterator[Visitor]:
    """Visit the town's pages."""
    visitor = Visitor(town)
    yield visitor
    await visitor.http.aclose()
