"""``python -m tests.e2e.dashboard_pictures``: the pictures of docs/dashboard.md, made anew.

A living cluster on twelve machines, with a GPU that fails, and an extender over 5,000 nodes.
Wants Debian's chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect

from cli.demo import DEFAULT_MACHINES
from tests.e2e.browser import CHROMIUM, browse
from tests.e2e.dashboard_sites import TOKEN, Living, Standing, living
from tests.waiting import wait_until
from topology.wire import MIN_LINK_KEY

FOLDER: Final = Path(__file__).parents[2] / "docs" / "pictures"

MOST_BYTES: Final = 200_000

PODS: Final = (8, 4, 2, 4, 2, 1, 4, 8, 2, 1, 4, 2, 1, 4, 8, 2, 4, 1)

MANY: Final = 5000


def fill(site: Living) -> None:
    """Give the cluster pods, of which some wait, and a GPU that fails."""
    faults = site.cluster.nodes["n05"].faults
    faults.write_text("- {kind: xid, gpu: 6, xid: 79}\n")
    wait_until(lambda: site.cluster.observation.gpus_of("n05") == 7, timeout=60)
    for number, gpus in enumerate(PODS):
        site.create(f"train-{number:02}", gpus)
    site.settle()
    for name in ("llama-pretrain", "diffusion"):
        site.create(name, 16, **{MIN_LINK_KEY: "NV"})
    site.settle()


def choose(site: Living) -> str:
    """Return a pod of several GPUs that shares the machine with most GPUs."""
    gpus = {name: len(node.spec.machine.gpus) for name, node in site.cluster.nodes.items()}
    pods = [
        (gpus[pod.spec.node_name], PODS[int(pod.metadata.name[-2:])], pod.metadata.name)
        for pod in site.cluster.observation.pods().values()
        if pod.spec.node_name and pod.metadata.name.startswith("train-")
    ]
    return max((whole, count, name) for whole, count, name in pods if 1 < count < whole)[2]


def shoot(page: Page, name: str) -> None:
    """Write what is in sight, and say how large it is; a picture that is too large is a fault."""
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path.name}: {size / 1000:.0f} kB")  # noqa: T201 -- a tool tells
    assert size < MOST_BYTES, path


def visit(browser: Browser, url: str, *, width: int, height: int, scheme: str = "light") -> Page:
    """Open a page that follows the cluster."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    answer = page.goto(url)
    assert answer is not None
    assert answer.status in {200, 401}, answer.status
    if page.locator("[data-live]").count():
        expect(page.locator("#follow")).to_have_class("follow on", timeout=30_000)
    return page


def main() -> int:
    """Make them all."""
    if shutil.which(CHROMIUM) is None:
        sys.stderr.write("not installed: chromium (the name of Debian's package)\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    with browse() as browser:
        with living(DEFAULT_MACHINES) as site:
            fill(site)
            pod = f"{site.url}/pods/default/{choose(site)}"
            shoot(visit(browser, site.url, width=1280, height=960), "dashboard-cluster")
            mesh = visit(browser, f"{site.url}/nodes/n01", width=1280, height=800, scheme="dark")
            shoot(mesh, "dashboard-node")
            decision = visit(browser, pod, width=1280, height=1050)
            shoot(decision, "dashboard-decision")
            weights = decision.get_by_role("slider").first
            weights.press("End")
            expect(decision.locator("#what-if-said")).to_contain_text("would go", timeout=30_000)
            decision.locator("#what-if").scroll_into_view_if_needed()
            decision.locator("#what-if").screenshot(path=FOLDER / "dashboard-weights.png")
            shoot(visit(browser, f"{site.url}/nodes/n05", width=390, height=844), "dashboard-phone")
        folder = Path(tempfile.mkdtemp(prefix="gt-"))
        large = Standing(folder, MANY)
        try:
            large.start()
            page = visit(browser, large.url, width=1280, height=900, scheme="dark")
            page.get_by_label("Token of the explain API").fill(TOKEN)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("application").focus()
            for _ in range(42):
                page.keyboard.press("ArrowRight")
            shoot(page, "dashboard-heat-map")
        finally:
            large.stop()
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
