"""Who may ask, and which replica answers: tokens, the Lease, and handing questions on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
import uvicorn
from pydantic import ValidationError

from runtime.kube_aio import AioKubeClient
from scheduler.explain import app
from scheduler.explain.errors import TokenError
from scheduler.explain.leader import KNOWN_SECONDS, Leader
from scheduler.explain.settings import ExplainSettings
from scheduler.explain.tokens import TokenFile, TokenFileError
from tests.scheduler.conftest import Town
from tests.scheduler.explain.conftest import Asker
from tests.scheduler.nodes import mesh, pod_object

LEASES = "/apis/coordination.k8s.io/v1/namespaces/gputopo-system/leases"
PODS = "/api/v1/namespaces/gputopo-system/pods"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """Write a token."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


ASKERS = [("", 401), ("Bearer other", 401), ("Basic secret", 401), ("Bearer secret", 200)]


@pytest.mark.parametrize(("header", "status"), ASKERS)
async def test_only_who_has_the_token_is_answered(
    town: Town, token: Path, header: str, status: int
) -> None:
    """Nothing is said to others, not even what there is."""
    transport = httpx2.ASGITransport(app.build(town.extender.desk, TokenFile(token)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.get("/v1/cluster", headers={"Authorization": header})
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "bearer token" in answer.json()["error"]


def test_a_new_token_is_taken_and_a_broken_file_is_not(token: Path) -> None:
    """The kubelet replaces the file of a Secret while we run."""
    known = TokenFile(token)
    token.write_text("another")
    os.utime(token, ns=(1, 1))
    known.check("Bearer another")
    token.write_text("")
    known.check("Bearer another")
    token.unlink()
    known.check("Bearer another")
    with pytest.raises(TokenError):
        known.check("Bearer secret")


@pytest.mark.parametrize("text", ["", " \n", "a\x00b"])
def test_a_file_without_a_token_stops_the_start(token: Path, text: str) -> None:
    """An empty token would let everybody in."""
    token.write_text(text)
    with pytest.raises(TokenFileError, match="there is no token in it"):
        TokenFile(token)


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "10.0.0.1", "example"])
def test_an_address_that_others_reach_wants_a_token(host: str) -> None:
    """It is a settings error, before anything is started."""
    with pytest.raises(ValidationError, match="others reach it, so token_file is needed"):
        ExplainSettings(host=host)
    assert ExplainSettings(host=host, token_file=Path("x")).host == host
    assert ExplainSettings(host=host, port=-1).port == -1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_the_own_loopback_needs_none(host: str) -> None:
    """Who opens a port of the pod is asked for his rights by the API server."""
    assert ExplainSettings(host=host).token_file is None


async def lead(client: AioKubeClient, holder: str) -> None:
    """Let a pod hold the Lease."""
    spec = {"holderIdentity": holder}
    await client.post(LEASES, {"metadata": {"name": "gputopo-scheduler"}, "spec": spec})


def make_leader(
    client: AioKubeClient, port: int = 1, *, me: str = "us", wide: bool = True
) -> Leader:
    """Look for the leader as the pod `me`."""
    return Leader(
        client,
        "gputopo-system/gputopo-scheduler",
        me=me,
        port=port,
        reachable=wide,
        clock=asyncio.get_running_loop().time,
    )


@pytest.fixture
async def other(ask: Asker) -> AsyncIterator[tuple[Asker, int]]:
    """Serve the town's API on a real port, as the replica that leads would."""
    server = uvicorn.Server(
        uvicorn.Config(app.build(ask.town.extender.desk), port=0, log_config=None, lifespan="off")
    )
    serving = asyncio.create_task(server.serve())
    await ask.town.until(lambda: server.started)
    yield ask, server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def standby(town: Town, leader: Leader, path: str, **given: object) -> httpx2.Response:
    """Ask a replica that does not decide and knows nothing."""
    empty = httpx2.ASGITransport(app.build(town.extender.desk, leader=leader))
    async with httpx2.AsyncClient(transport=empty, base_url="http://x") as http:
        answer = await (http.post(path, **given) if given else http.get(path))
    await leader.close()
    return answer


async def add_pod(client: AioKubeClient, name: str, address: str | None) -> None:
    """Create a pod with an address."""
    pod = pod_object(name, 0)
    pod["metadata"]["namespace"] = "gputopo-system"
    await client.post(PODS, pod)
    if address is not None:
        await client.patch(f"{PODS}/{name}/status", {"status": {"podIP": address}})


async def test_a_standby_answers_by_asking_the_leader(other: tuple[Asker, int]) -> None:
    """Path, query, body, status and answer are handed on as they are."""
    ask, port = other
    client = ask.town.client
    await ask.town.node("a", mesh(4))
    await ask.place("p", 2, "a")
    await lead(client, "them_0b1c-2d")
    await add_pod(client, "them", "127.0.0.1")
    for path in ("/v1/pods/default/p/scores?top=1", "/v1/pods/default/x", "/v1/nodes/a"):
        told = await standby(ask.town, make_leader(client, port), path)
        direct = await ask.http.get(path)
        assert (told.status_code, told.json()) == (direct.status_code, direct.json())
    body = msgspec.json.encode(pod_object("q", 1))
    told = await standby(ask.town, make_leader(client, port), "/v1/dry-run", content=body)
    assert told.status_code == 200


async def test_who_leads_answers_by_itself(town: Town) -> None:
    """So does who cannot find out, and who would only be asked by another replica."""
    await lead(town.client, "us_0b1c")
    for leader in (make_leader(town.client), make_leader(town.client, me="else")):
        wants = 200 if leader is not None and leader._me == "us" else 503
        assert (await standby(town, leader, "/v1/cluster")).status_code == wants
    missing = Leader(town.client, "nowhere/x", me="us", port=1, reachable=True, clock=lambda: 0.0)
    assert (await standby(town, missing, "/v1/cluster")).status_code == 200


TROUBLES = [
    ({"address": None, "wide": True}, "them decides, and has no address"),
    ({"address": "127.0.0.1", "wide": True}, "and them does not answer"),
    ({"address": "127.0.0.1", "wide": False}, "them does, and answers on its own loopback only"),
]


@pytest.mark.parametrize(("given", "text"), TROUBLES)
async def test_a_leader_that_cannot_be_asked_is_a_clear_error(
    town: Town, given: dict[str, object], text: str
) -> None:
    """503, with the pod's name."""
    await lead(town.client, "them_0b1c")
    await add_pod(town.client, "them", given["address"])  # type: ignore[arg-type]
    leader = make_leader(town.client, port=9, wide=bool(given["wide"]))
    answer = await standby(town, leader, "/v1/cluster")
    assert answer.status_code == 503
    assert text in answer.json()["error"]


async def test_the_lease_is_read_again_after_a_while(town: Town) -> None:
    """kube-scheduler gives it up within seconds; the API server is not asked at each question."""
    now = [0.0]
    leader = Leader(
        town.client,
        "gputopo-system/gputopo-scheduler",
        me="us",
        port=1,
        reachable=True,
        clock=lambda: now[0],
    )
    await lead(town.client, "them_0b1c")
    assert await leader.elsewhere() == "them"
    await town.client.patch(f"{LEASES}/gputopo-scheduler", {"spec": {"holderIdentity": "us_2"}})
    assert await leader.elsewhere() == "them"
    now[0] += KNOWN_SECONDS
    assert await leader.elsewhere() is None
