"""What the pages show, of decisions that were made and of hostile names."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import msgspec
import pytest

from scheduler.dashboard.guard import POLICY
from scheduler.explain.fleet_shapes import NodeLine
from tests.scheduler.dashboard.conftest import Visitor
from tests.scheduler.nodes import bridged, mesh, pcie, switched
from topology.wire import NodeState


@pytest.fixture
async def busy(visit: Visitor) -> Visitor:
    """Four nodes and three pods: `p` is bound, `q` planned, `r` refused."""
    await visit.town.node("switch", switched(8))
    await visit.town.node("mesh", mesh(4), NodeState(1, unhealthy={"GPU-2": "XID 79"}))
    await visit.town.node("pcie", pcie(4))
    await visit.town.node("plain", None)
    await visit.place("p", 4, "switch", "mesh", "pcie")
    await visit.town.filter(await visit.town.pod("q", 2), "switch", "mesh", "pcie")
    await visit.town.filter(await visit.town.pod("r", 8), "mesh", "pcie")
    return visit


PAGES = (
    "/",
    "/?by=loss",
    "/?by=wasted&over=day",
    "/?by=load",
    "/?by=ill",
    "/nodes",
    "/nodes?q=e&page=7",
    "/nodes/switch",
    "/nodes/mesh",
    "/nodes/pcie",
    "/nodes/plain",
    "/pods",
    "/pods?show=all",
    "/pods?show=bound",
    "/pods/default/p",
    "/pods/default/q",
    "/pods/default/r",
)


async def test_pages_are_well_formed_and_have_nothing_inline(busy: Visitor) -> None:
    """No style, no script, no address of elsewhere; each id is there once."""
    for path in PAGES:
        await busy.see(path)


async def test_an_empty_cluster_has_its_pages_too(visit: Visitor) -> None:
    """They say that nothing is there."""
    assert "No node is known yet" in await visit.see("/")
    assert "No such node" in await visit.see("/nodes")
    assert "No pod waits" in await visit.see("/pods")


async def test_the_cluster_shows_each_gpu_of_a_small_cluster(busy: Visitor) -> None:
    """A square each, of one colour where one pod holds them; an ill one says why."""
    page = await busy.see("/")
    tile = re.search(r'<a class="tile[^>]*href="./nodes/switch">.*?</a>', page, re.DOTALL)
    assert tile is not None
    assert re.findall(r'class="cell ([^"]*)"', tile[0]).count("held c0") == 4
    assert re.findall(r'class="cell ([^"]*)"', tile[0]).count("free") == 2
    assert 'title="GPU 2: XID 79"' in page
    assert "topology unknown" in page


async def test_a_large_cluster_is_a_heat_map_of_a_few_elements(
    visit: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One path for each colour, and the names for the script."""
    monkeypatch.setattr("scheduler.dashboard.pages.TILES", 1)
    await visit.town.node("a", switched(8))
    await visit.town.node("b", mesh(4), NodeState(1, allocations={"x": ("GPU-0",)}))
    await visit.town.node("c", None)
    page = await visit.see("/")
    heat = re.search(r'<svg[^>]*class="heat".*?</svg>', page)
    assert heat is not None
    assert re.findall(r'<path class="([^"]*)" d="M', heat[0]) == ["step3", "step4", "unknown"]
    data = re.search(r'<script type="application/json" id="heat-data">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1]) == {
        "columns": 3,
        "names": ["a", "b", "c"],
        "free": [8, 3, 0],
        "gpus": [8, 4, 0],
    }


async def test_a_node_shows_its_links_and_who_holds_what(busy: Visitor) -> None:
    """A switch as a bar, NVLinks as curves, holders with a way to their page."""
    page = await busy.see("/nodes/switch")
    assert "NVSwitch · 12 NVLinks a GPU" in page
    assert 'href="../pods/default/p"' in page
    assert "planned for default/q" in page
    assert "GPU 0 – GPU 1: 4 NVLinks" in await busy.see("/nodes/mesh")


async def test_a_decision_shows_scores_sets_and_refusals(busy: Visitor) -> None:
    """For a bound pod and for one that waits."""
    page = await busy.see("/pods/default/p")
    assert "It runs on switch with 4 GPUs, which reach each other at" in page
    assert "link_quality" in page
    assert page.count("gpu held c0 chosen") == 8, "four GPUs, lying and standing"
    page = await busy.see("/pods/default/r")
    assert "It waits: " in page
    assert "Why other nodes would not do" in page


async def test_lists_are_cut_into_pages(visit: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a way to the next and back, that keeps what was searched for."""
    monkeypatch.setattr("scheduler.dashboard.pages.PAGE", 2)
    for name in ("a1", "a2", "a3", "b"):
        await visit.town.node(name, bridged(4))
    page = await visit.see("/nodes?q=a")
    assert ("a2<" in page, "a3<" in page, 'href="?q=a&amp;page=2"' in page) == (True, False, True)
    page = await visit.see("/nodes?q=a&page=2")
    assert ("a2<" in page, "a3<" in page, 'href="?q=a&amp;page=1"' in page) == (False, True, True)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}</title>"


async def test_what_a_node_says_is_text(visit: Visitor) -> None:
    """A node's annotation may hold anything; none of it becomes markup."""
    await visit.town.node(
        "a",
        mesh(4, prefix=HOSTILE, model=HOSTILE),
        NodeState(1, unhealthy={f"{HOSTILE}-1": HOSTILE}),
    )
    for path in ("/", "/nodes/a", "/nodes", f"/nodes?q={quote(HOSTILE)}"):
        page = await visit.see(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "{{7*7}}" in page


async def test_names_in_the_heat_maps_data_cannot_end_it(
    visit: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data for the script stays data."""
    monkeypatch.setattr("scheduler.dashboard.pages.TILES", 0)
    await visit.town.node("a", mesh(4))
    lines = await visit.town.extender.desk.nodes()

    async def nodes() -> list[NodeLine]:
        """List a node of a hostile name."""
        return [msgspec.structs.replace(line, node=HOSTILE) for line in lines]

    monkeypatch.setattr(visit.town.extender.desk, "nodes", nodes)
    page = await visit.see("/")
    assert "alert(1)</script>" not in page
    assert r"\u003c/script\u003e" in page


MISTAKES = [
    ("/nodes/none", 404, "node none: is not in the inventory"),
    ("/pods/default/none", 404, "no decision about it is known"),
    ("/pods?show=lost", 400, "is none of waiting, bound, all"),
    ("/?by=smell", 400, "is none of free, loss, wasted, load, ill"),
    ("/?over=aeon", 400, "is none of hour, day"),
    ("/nodes?page=0", 400, "is not the number of a page"),
    ("/nodes?page=%C2%B2", 400, "is not the number of a page"),
]


async def test_a_wrong_question_is_a_page_that_says_what_is_wrong(busy: Visitor) -> None:
    """With the status that the API would give."""
    for path, status, text in MISTAKES:
        assert text in await busy.see(path, status)


async def test_every_answer_carries_the_content_policy(busy: Visitor) -> None:
    """Pages, errors, files and the API behind them."""
    for path in ("/", "/nodes/none", "/static/dashboard.js", "/v1/cluster", "/nowhere"):
        answer = await busy.http.get(path)
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_api_is_where_it_was(busy: Visitor) -> None:
    """Beside the pages, in JSON, with its own errors."""
    assert (await busy.http.get("/v1/nodes/mesh")).json()["node"] == "mesh"
    assert (await busy.http.get("/v1/nodes/none")).status_code == 404
    assert (await busy.http.get("/nowhere")).json() == {"error": "GET /nowhere: not found"}


async def test_files_are_kept_by_browsers_and_named_anew_when_they_change(busy: Visitor) -> None:
    """For a year, under an address with their digest."""
    page = await busy.see("/nodes/mesh")
    found = re.search(r'src="\.\./(static/dashboard\.js\?v=[0-9a-f]{12})"', page)
    assert found is not None
    answer = await busy.http.get(f"/{found[1]}")
    assert "immutable" in answer.headers["cache-control"]
    assert (await busy.http.get("/static/../routes.py")).status_code == 404
