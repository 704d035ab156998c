"""Who may ask: by where the connection comes from, and by the token that is shown."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError

from scheduler.explain import app
from scheduler.explain.access import Access, is_own
from scheduler.explain.settings import ExplainSettings
from scheduler.explain.tokens import TokenFile, TokenFileError
from scheduler.explain.wiring import read_tokens
from tests.scheduler.conftest import Town
from tests.scheduler.explain.replicas import serve_on

NEAR = ("127.0.0.1", 40_000)
FAR = ("10.0.0.1", 40_000)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """Write a token."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


async def ask(
    town: Town, access: Access, peer: tuple[str, int] = FAR, **headers: str
) -> httpx2.Response:
    """Ask from an address."""
    transport = httpx2.ASGITransport(app.build(town.extender.desk, access), client=peer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get("/v1/cluster", headers=headers)


ASKERS = [("", 401), ("Bearer other", 401), ("Basic secret", 401), ("Bearer secret", 200)]


@pytest.mark.parametrize(("header", "status"), ASKERS)
async def test_only_who_has_the_token_is_answered(
    town: Town, token: Path, header: str, status: int
) -> None:
    """Nothing is said to others, not even what there is."""
    answer = await ask(town, Access(token=TokenFile(token)), Authorization=header)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer <token>" in answer.json()["error"]


async def test_who_comes_over_the_loopback_needs_no_token(town: Town, token: Path) -> None:
    """Unless it is not trusted: then it is asked for one like everybody."""
    for trusted, status in ((True, 200), (False, 401)):
        access = Access(token=TokenFile(token), trust_loopback=trusted)
        assert (await ask(town, access, NEAR)).status_code == status


async def test_a_foreign_name_over_the_loopback_is_refused(town: Town, token: Path) -> None:
    """A page that points its own name at the loopback has no token; a proxy that has one may."""
    access = Access(token=TokenFile(token))
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1", "[", "a:b:c", ""):
        answer = await ask(town, access, NEAR, Host=host)
        assert answer.status_code == 421
        assert "is to be asked for by localhost" in answer.json()["error"]
    given = {"Host": "gputopo.example", "Authorization": "Bearer secret"}
    assert (await ask(town, access, NEAR, **given)).status_code == 200


OWN = [
    ("127.0.0.1", True),
    ("::1", True),
    ("::ffff:127.0.0.1", True),
    ("127.0.0.6", False),
    ("10.0.0.1", False),
    ("fd00::1", False),
    ("::ffff:10.0.0.1", False),
    ("", False),
]


@pytest.mark.parametrize(("address", "own"), OWN)
def test_the_loopback_is_two_addresses(address: str, own: bool) -> None:
    """Also as a socket of both families shows them; not those of a mesh's sidecars."""
    assert is_own(address) is own


@pytest.mark.parametrize("host", ["::", "127.0.0.1"])
async def test_the_peer_of_the_socket_counts(town: Town, token: Path, host: str) -> None:
    """What is listened on, and what headers say, is no matter; nor is the family."""
    access = Access(token=TokenFile(token))
    async with serve_on(host, app.build(town.extender.desk, access)) as port:
        for source, status in (("127.0.0.1", 200), ("127.0.0.2", 401)):
            transport = httpx2.AsyncHTTPTransport(local_address=source)
            async with httpx2.AsyncClient(transport=transport) as http:
                answer = await http.get(
                    f"http://127.0.0.1:{port}/v1/cluster",
                    headers={"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
                )
            assert answer.status_code == status


def test_a_new_token_is_taken_and_a_broken_file_is_not(token: Path) -> None:
    """The kubelet replaces the file of a Secret while we run."""
    known = TokenFile(token)
    token.write_text("another")
    os.utime(token, ns=(1, 1))
    assert known.fits("another")
    token.write_text("")
    assert known.fits("another")
    token.unlink()
    assert known.fits("another")
    assert not known.fits("secret")


@pytest.mark.parametrize("text", ["", " \n", "a\x00b"])
def test_a_file_without_a_token_stops_the_start(token: Path, text: str) -> None:
    """An empty token would let everybody in."""
    token.write_text(text)
    for given in ({"token_file": token}, {"peer_token_file": token}):
        with pytest.raises(TokenFileError, match="there is no token in it"):
            read_tokens(ExplainSettings(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "10.0.0.1", "example"])
def test_an_address_that_others_reach_wants_a_token(host: str) -> None:
    """It is a settings error, before anything is started."""
    with pytest.raises(ValidationError, match="others reach it, so token_file or audience is"):
        ExplainSettings(host=host)
    assert ExplainSettings(host=host, token_file=Path("x")).host == host
    assert ExplainSettings(host=host, audience="gputopo-explain").host == host
    assert ExplainSettings(host=host, port=-1).port == -1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_the_own_loopback_needs_none(host: str) -> None:
    """Who opens a port of the pod is asked for his rights by the API server."""
    assert ExplainSettings(host=host).token_file is None
    with pytest.raises(ValidationError, match="without it token_file or audience is needed"):
        ExplainSettings(host=host, trust_loopback=False)


def test_the_loopback_is_trusted_where_no_secret_is_given() -> None:
    """Who gives a secret wants it of everybody, as ever; it can be said either way."""
    secret = Path("x")
    assert ExplainSettings().trusts_loopback
    assert ExplainSettings(audience="a").trusts_loopback
    assert not ExplainSettings(token_file=secret).trusts_loopback
    assert not ExplainSettings(audience="a", trust_loopback=False).trusts_loopback
    assert ExplainSettings(token_file=secret, trust_loopback=True).trusts_loopback
