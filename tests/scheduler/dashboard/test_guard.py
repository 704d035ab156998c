"""Who may see the dashboard: with a token who has it, without one who asks from this machine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from scheduler.dashboard import routes
from scheduler.dashboard.guard import COOKIE, session_of
from scheduler.explain import app
from scheduler.explain.access import Access
from scheduler.explain.reviews import Reviews
from scheduler.explain.tokens import TokenFile
from tests.scheduler.conftest import Town
from tests.scheduler.dashboard.conftest import Visitor, make_feed, sources_of
from tests.scheduler.explain.test_reviews import AUDIENCE, READER, Registry, token_of


@pytest.fixture
async def closed(town: Town, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the pages with a token."""
    (tmp_path / "token").write_text("secret\n")
    registry = Registry()
    reviews = Reviews(registry, AUDIENCE, clock=lambda: 0.0)
    token = TokenFile(tmp_path / "token")
    access = Access(token=token, reviews=reviews, trust_loopback=False)
    desk = town.extender.desk
    served = routes.build(sources_of(town, make_feed(town)), app.build(desk, access), access)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(served), base_url="http://dashboard.example"
    ) as client:
        yield client


async def test_without_a_token_this_machines_names_are_answered(visit: Visitor) -> None:
    """As kubectl's port-forward asks."""
    for host in ("localhost:8887", "127.0.0.1", "127.0.0.1:80", "[::1]:8887"):
        assert (await visit.http.get("/", headers={"Host": host})).status_code == 200


async def test_without_a_token_a_foreign_name_is_refused(visit: Visitor) -> None:
    """A foreign page that points its name here gets nothing, not from the API either."""
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1", "[", "a:b:c"):
        for path in ("/", "/v1/cluster", "/events"):
            answer = await visit.http.get(path, headers={"Host": host})
            assert answer.status_code == 421
            assert "without a token it is to be asked for by localhost" in answer.text


async def test_with_a_token_a_stranger_sees_the_sign_in(closed: httpx2.AsyncClient) -> None:
    """And nothing else."""
    for path in ("/", "/nodes", "/pods/default/p", "/events"):
        answer = await closed.get(path)
        assert answer.status_code == 401
        assert "Token of the explain API" in answer.text


async def test_who_signs_in_sees_the_pages_and_the_api(closed: httpx2.AsyncClient) -> None:
    """The cookie stands for the token, cannot be read by scripts, and is not the token."""
    answer = await closed.post("/sign-in", data={"token": "secret"})
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "secret" not in cookie
    assert (await closed.get("/")).status_code == 200
    assert (await closed.get("/v1/cluster")).status_code == 200


async def test_a_wrong_token_is_told_and_gives_no_cookie(closed: httpx2.AsyncClient) -> None:
    """However long it is."""
    for given in ("wrong", "", "x" * 100_000, token_of("nobody")):
        answer = await closed.post("/sign-in", data={"token": given})
        assert answer.status_code == 401
        assert 'role="alert">Not let in: ' in answer.text
        assert "set-cookie" not in answer.headers


async def test_a_token_of_the_clusters_opens_too(closed: httpx2.AsyncClient) -> None:
    """It is its own cookie: it is good for nothing else, and checked again while it is used."""
    answer = await closed.post("/sign-in", data={"token": token_of(READER)})
    assert answer.status_code == 303
    for path in ("/", "/v1/cluster"):
        assert (await closed.get(path)).status_code == 200


async def test_who_may_not_read_decisions_is_told_so(closed: httpx2.AsyncClient) -> None:
    """On the form, and on every page and answer."""
    answer = await closed.post("/sign-in", data={"token": token_of("eve")})
    assert answer.status_code == 403
    assert "Not let in: eve may not get decisions.gputopo.dev" in answer.text
    closed.cookies.set(COOKIE, token_of("eve"))
    assert (await closed.get("/")).status_code == 403
    assert (await closed.get("/v1/cluster")).status_code == 403


async def test_the_form_says_which_token_is_wanted(closed: httpx2.AsyncClient) -> None:
    """With the command that makes one."""
    said = (await closed.get("/")).text
    assert f"kubectl create token ACCOUNT --audience {AUDIENCE}" in said


async def test_files_of_another_version_are_not_kept(closed: httpx2.AsyncClient) -> None:
    """A page may come from a replica that is newer, and name its version of them."""
    page = (await closed.get("/")).text
    (version,) = set(re.findall(r"static/dashboard\.js\?v=(\w+)", page))
    for asked, kept in ((version, True), ("other", False), ("", False)):
        answer = await closed.get(f"/static/dashboard.js?v={asked}")
        assert ("immutable" in answer.headers["cache-control"]) is kept


async def test_a_cookie_of_another_token_is_worth_nothing(closed: httpx2.AsyncClient) -> None:
    """When the token changes, everybody signs in again."""
    closed.cookies.set(COOKIE, session_of("old"))
    assert (await closed.get("/")).status_code == 401
    assert (await closed.get("/v1/cluster")).status_code == 401


async def test_the_token_itself_opens_everything_too(closed: httpx2.AsyncClient) -> None:
    """As for a script."""
    for path in ("/", "/v1/cluster"):
        answer = await closed.get(path, headers={"Authorization": "Bearer secret"})
        assert answer.status_code == 200
