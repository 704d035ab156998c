"""Debian's Chromium, driven by Playwright, and axe in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

CHROMIUM: Final = "chromium"

_FLAGS: Final = (
    # As root there is no sandbox of Chromium's own; ours has no way out.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

PATIENCE: Final = 30_000
"""Milliseconds that a condition may take on a busy machine."""

SERIOUS: Final = {"serious", "critical"}


@contextlib.contextmanager
def browse() -> Iterator[Browser]:
    """Lend a browser with a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(CHROMIUM), args=list(_FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(browser: Browser, **given: Any) -> Iterator[Page]:
    """Lend a page in a context of its own; what its console complains of fails at the end.

    A breach of the content policy is such a complaint.
    """
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def failed(error: Error) -> None:
        complaints.append(str(error))

    context = browser.new_context(**given)
    page = context.new_page()
    page.on("console", heard)
    page.on("pageerror", failed)
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


def visit(page: Page, url: str) -> None:
    """Open a page and wait until it follows the cluster, or has nothing to follow."""
    answer = page.goto(url)
    assert answer is not None
    if page.locator("[data-live]").count():
        expect(page.locator("#follow")).to_have_text("Live", timeout=PATIENCE)
        expect(page.locator("#follow")).to_have_class("follow on", timeout=PATIENCE)


def faults_of(page: Page) -> list[str]:
    """Return what axe finds serious on a page: the rule, and where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
