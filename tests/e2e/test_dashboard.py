"""The dashboard in a real browser, over a cluster that lives.

Every page on live data at three widths, light and dark; axe finds nothing serious; what changes
shows by itself; keys are enough; the content policy is never in the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import PATIENCE, browse, faults_of, page_of, visit
from tests.e2e.dashboard_sites import TOKEN, Living, Standing, furnish, living

MACHINES = ("dgx1-v100", "hgx-h100-8x-ib", "a40-8x-bridges", "l40s-8x")

PAGES = (
    "/",
    "/nodes",
    "/nodes/n01",
    "/nodes/n02",
    "/nodes/n04",
    "/pods",
    "/pods?show=bound",
    "/pods?show=all",
    "/pods/default/train-0",
    "/pods/default/too-large",
    "/pods/default/larger-than-any-node",
    "/pods/default/none",
)

MANY = 5000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with browse() as started:
        yield started


@pytest.fixture(scope="module")
def site() -> Iterator[Living]:
    """Start a cluster and give it pods."""
    with living(MACHINES) as started:
        furnish(started)
        yield started


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_every_page_fits_its_screen(browser: Browser, site: Living, width: int) -> None:
    """It never scrolls sideways, and has one heading of the first rank and a title."""
    with page_of(browser, viewport={"width": width, "height": 900}) as page:
        for path in PAGES[:-1]:
            visit(page, site.url + path)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path
            assert page.locator("h1").count() == 1
            assert page.title().endswith("gputopo")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(browser: Browser, site: Living, scheme: str, width: int) -> None:
    """Contrast, names, roles, keyboard: on every page."""
    size = {"width": width, "height": 900}
    with page_of(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as page:
        for path in PAGES[:-1]:
            visit(page, site.url + path)
            assert faults_of(page) == [], path


def test_a_page_that_is_not_there_says_so(browser: Browser, site: Living) -> None:
    """In words, with a way on."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(site.url + PAGES[-1])
        expect(page.locator("main")).to_contain_text("no decision about it is known")
        page.get_by_role("link", name="To the cluster").click()
        expect(page.locator("h1")).to_have_text("Cluster")


def test_what_happens_shows_by_itself(browser: Browser, site: Living) -> None:
    """A pod that is created appears, without a reload, and the focus stays where it was."""
    with page_of(browser) as page:
        visit(page, f"{site.url}/pods")
        page.evaluate("window.same = true")
        held = page.get_by_role("link", name="default/larger-than-any-node")
        held.focus()
        site.create("late", 16)
        expect(page.get_by_role("link", name="default/late")).to_be_visible(timeout=PATIENCE)
        expect(held).to_be_focused()
        assert page.evaluate("window.same")


def test_following_can_be_paused(browser: Browser, site: Living) -> None:
    """Nothing moves until it is let go again, and then what was missed is there."""
    with page_of(browser) as page:
        visit(page, f"{site.url}/pods")
        button = page.get_by_role("button", name="Live")
        button.press("Enter")
        expect(page.locator("#follow")).to_have_text("Paused")
        expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
        site.create("missed", 16)
        with page_of(browser) as other:
            visit(other, f"{site.url}/pods")
            shown = other.get_by_role("link", name="default/missed")
            expect(shown).to_be_visible(timeout=PATIENCE)
        assert page.get_by_role("link", name="default/missed").count() == 0
        page.locator("#follow").press("Enter")
        expect(page.get_by_role("link", name="default/missed")).to_be_visible(timeout=PATIENCE)


def test_keys_are_enough(browser: Browser, site: Living) -> None:
    """From the cluster to a pod's page: skip link, tiles, the drawing's GPUs."""
    with page_of(browser) as page:
        visit(page, site.url)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.get_by_role("link", name="n02").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("n02")
        page.locator("svg.lying a").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("train-")


def test_other_weights_are_tried_by_a_dry_run(browser: Browser, site: Living) -> None:
    """A slider that moves ranks the nodes anew; the pod stays what it is."""
    with page_of(browser) as page:
        visit(page, f"{site.url}/pods/default/train-0")
        slider = page.get_by_role("slider").first
        with page.expect_response("**/v1/dry-run?top=10") as told:
            slider.press("Home")
        assert told.value.status == 200
        expect(page.locator("#what-if-said")).to_contain_text("It would go to", timeout=PATIENCE)
        rows = page.locator("#what-if-table tbody tr")
        best = told.value.json()["pods"][0]["scores"]
        assert rows.count() == len(best)
        expect(rows.first).to_contain_text(best[0]["Host"])
        expect(page.locator("h1 .badge")).to_have_text("bound")


def test_a_waiting_pod_says_what_would_help(browser: Browser, site: Living) -> None:
    """Which pods hold the set; or what kube-scheduler says, where it never asked us."""
    with page_of(browser) as page:
        visit(page, f"{site.url}/pods/default/larger-than-any-node")
        expect(page.locator("#summary")).to_contain_text("kube-scheduler")
        expect(page.locator("h1 .badge")).to_have_text("waiting")


def test_motion_stops_for_who_wants_none(browser: Browser, site: Living) -> None:
    """The one thing that moves by itself stands still."""
    with page_of(browser, reduced_motion="reduce") as page:
        visit(page, site.url)
        assert page.evaluate("getComputedStyle(document.querySelector('.dot')).animationName") == (
            "none"
        )


def test_a_page_takes_another_shape_when_its_pod_does(browser: Browser, site: Living) -> None:
    """A pod that waited and is bound gets its set and its scores, without a reload."""
    with page_of(browser) as page:
        site.create("patient", 8)
        visit(page, f"{site.url}/pods")
        shown = page.get_by_role("link", name="default/patient")
        expect(shown).to_be_visible(timeout=PATIENCE)
        visit(page, f"{site.url}/pods/default/patient")
        page.evaluate("window.same = true")
        expect(page.locator("h1 .badge")).to_have_text("waiting", timeout=PATIENCE)
        site.delete("train-")
        expect(page.locator("h1 .badge")).to_have_text("bound", timeout=PATIENCE)
        expect(page.locator("#set svg.lying")).to_be_visible(timeout=PATIENCE)
        expect(page.get_by_role("slider").first).to_be_visible()
        assert page.evaluate("window.same")


@pytest.fixture(scope="module")
def standing(folder: Path) -> Iterator[Standing]:
    """Start an extender over 5,000 nodes, with a token."""
    site = Standing(folder, MANY)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def test_five_thousand_nodes_behind_a_token(browser: Browser, standing: Standing) -> None:
    """Signed in, the heat map is there; it can be walked by keys, and a node opened."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(standing.url)
        page.get_by_label("Token of the explain API").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Not let in: that is not the token.")
        state = sign_in(page)
        assert [(one["httpOnly"], one["sameSite"]) for one in state] == [(True, "Lax")]
        heat = page.get_by_role("application")
        assert page.locator(".heat path").count() < 12
        heat.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#heat-said")).to_have_text("node-0001: 3 of 4 GPUs free")
        page.keyboard.press("End")
        expect(page.locator("#heat-said")).to_contain_text(f"node-{MANY - 1}")
        assert faults_of(page) == []
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(f"node-{MANY - 1}")


def sign_in(page: Page) -> list[dict[str, object]]:
    """Sign in on the page that asks for it; return the cookies that came of it."""
    page.get_by_label("Token of the explain API").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Cluster", timeout=PATIENCE)
    return [dict(one) for one in page.context.cookies()]


def test_the_pointer_finds_its_node(browser: Browser, standing: Standing) -> None:
    """Where a square is, its node is told; a click opens it."""
    with page_of(browser, viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{standing.url}/sign-in")
        sign_in(page)
        box = page.locator("svg.heat").bounding_box()
        assert box is not None
        columns = page.evaluate(
            "JSON.parse(document.getElementById('heat-data').textContent).columns"
        )
        cell = box["width"] / columns
        page.mouse.move(box["x"] + 4.5 * cell, box["y"] + 2.5 * cell)
        expected = f"node-{2 * columns + 4:04}"
        expect(page.locator("#heat-said")).to_contain_text(expected)
        page.mouse.click(box["x"] + 4.5 * cell, box["y"] + 2.5 * cell)
        expect(page.locator("h1")).to_have_text(expected, timeout=PATIENCE)
