"""Which replica answers: the one that decides, whichever is asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from runtime.kube_aio import AioKubeClient
from scheduler.explain import app
from scheduler.explain.access import Access
from scheduler.explain.leader import AWAY_SECONDS, KNOWN_SECONDS, Leader
from scheduler.explain.relay import ANSWERED_BY, FORWARDED, Relay
from scheduler.explain.tokens import TokenFile
from tests.scheduler.conftest import Town
from tests.scheduler.explain.conftest import Asker
from tests.scheduler.explain.replicas import LEASES, add_pod, lead, relaying, serve_on
from tests.scheduler.nodes import mesh, node_object, pod_object

PATHS = (
    "/v1/pods/default/p/scores?top=1",
    "/v1/pods/default/x",
    "/v1/pods?outcome=bound&limit=2",
    "/v1/pods/d%C3%A9/a%20%3F%23%252F",
    "/v1/nodes/a",
    "/v1/pods/default/p?top=x",
)


@pytest.fixture
def shown(tmp_path: Path) -> TokenFile:
    """Write the token that replicas show each other."""
    (tmp_path / "shown").write_text("between us")
    return TokenFile(tmp_path / "shown")


@pytest.fixture
async def other(ask: Asker, shown: TokenFile) -> AsyncIterator[tuple[Asker, int]]:
    """Serve the town's API on a real port, as the replica `them`, which leads and wants a token."""
    access = Access(token=shown, trust_loopback=False)
    client = ask.town.client
    await lead(client, "them_0b1c-2d")
    async with (
        relaying(client, 1, me="them") as relay,
        serve_on("127.0.0.1", app.build(ask.town.extender.desk, access, relay=relay)) as port,
    ):
        yield ask, port


async def standby(
    town: Town, relay: Relay, path: str, content: bytes | None = None, **headers: str
) -> httpx2.Response:
    """Ask a replica that does not decide and knows nothing."""
    empty = httpx2.ASGITransport(app.build(town.extender.desk, relay=relay))
    async with httpx2.AsyncClient(transport=empty, base_url="http://x") as http:
        method = "GET" if content is None else "POST"
        return await http.request(method, path, content=content, headers=headers)


async def test_a_standby_answers_by_asking_the_leader(
    other: tuple[Asker, int], shown: TokenFile
) -> None:
    """Path, query, body, status and answer are handed on as they are; the leader is named."""
    ask, port = other
    client = ask.town.client
    await ask.town.node("a", mesh(4))
    await ask.place("p", 2, "a")
    await add_pod(client, "them", "127.0.0.1")
    async with relaying(client, port, token=shown) as relay:
        for path in PATHS:
            told = await standby(ask.town, relay, path)
            direct = await ask.http.get(path)
            assert (told.status_code, told.json()) == (direct.status_code, direct.json())
            assert told.headers[ANSWERED_BY] == "them"
            assert told.headers["cache-control"] == "no-store"
        body = msgspec.json.encode(pod_object("q", 1))
        told = await standby(ask.town, relay, "/v1/dry-run", body)
        assert (told.status_code, len(told.json()["pods"])) == (200, 1)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
async def test_a_leader_with_an_ipv6_address_is_asked_too(ask: Asker) -> None:
    """As where pods have no others."""
    client = ask.town.client
    await lead(client, "them_1")
    await add_pod(client, "them", "::1")
    async with (
        serve_on("::", app.build(ask.town.extender.desk, Access())) as port,
        relaying(client, port) as relay,
    ):
        told = await standby(ask.town, relay, "/v1/cluster")
    assert (told.status_code, told.headers[ANSWERED_BY]) == (200, "them")


async def test_the_callers_token_stays_here(other: tuple[Asker, int], shown: TokenFile) -> None:
    """The leader is shown ours, whatever the caller sent."""
    ask, port = other
    await add_pod(ask.town.client, "them", "127.0.0.1")
    async with relaying(ask.town.client, port, token=shown) as relay:
        told = await standby(ask.town, relay, "/v1/cluster", Authorization="Bearer the caller's")
    assert told.status_code == 200


async def test_a_leader_in_the_hosts_network_is_found_by_its_node(
    other: tuple[Asker, int], shown: TokenFile
) -> None:
    """Its kube-scheduler's identity is the host's name, and no pod has that."""
    ask, port = other
    client = ask.town.client
    await client.post("/api/v1/nodes", node_object("them", mesh(4)))
    addresses = [
        {"type": "Hostname", "address": "them"},
        {"type": "InternalIP", "address": "127.0.0.1"},
    ]
    await client.patch("/api/v1/nodes/them/status", {"status": {"addresses": addresses}})
    async with relaying(client, port, token=shown) as relay:
        told = await standby(ask.town, relay, "/v1/cluster")
    assert told.headers[ANSWERED_BY] == "them"


async def test_who_leads_answers_by_itself(town: Town) -> None:
    """So does who never could find out."""
    await lead(town.client, "us_0b1c")
    async with relaying(town.client, 1) as relay:
        told = await standby(town, relay, "/v1/cluster")
    assert told.status_code == 200
    assert ANSWERED_BY not in told.headers
    unknown = Leader(town.client, "nowhere/x", me="us", clock=lambda: 0.0)
    relay = Relay(unknown, port=1, reachable=True, token=None)
    assert (await standby(town, relay, "/v1/cluster")).status_code == 200


TROUBLES = [
    (None, True, "them decides, and has no address"),
    ("127.0.0.1", True, "us does not decide; them does, and is silent: "),
    ("127.0.0.1", False, "us does not decide; them does, on its loopback only"),
]


@pytest.mark.parametrize(("address", "reachable", "text"), TROUBLES)
async def test_a_leader_that_cannot_be_asked_is_a_clear_error(
    town: Town, address: str | None, reachable: bool, text: str
) -> None:
    """503, with the pod's name."""
    await lead(town.client, "them_0b1c")
    await add_pod(town.client, "them", address)
    async with relaying(town.client, 9, reachable=reachable) as relay:
        answer = await standby(town, relay, "/v1/cluster")
    assert answer.status_code == 503
    assert text in answer.json()["error"]


async def test_a_leader_that_refuses_us_is_no_matter_of_the_callers(
    other: tuple[Asker, int],
) -> None:
    """401 would send him looking for another token, and his was good."""
    ask, port = other
    await add_pod(ask.town.client, "them", "127.0.0.1")
    async with relaying(ask.town.client, port) as relay:
        told = await standby(ask.town, relay, "/v1/cluster")
    assert told.status_code == 503
    assert "them does, and tells it: a bearer token is needed" in told.json()["error"]


async def test_who_is_taken_for_the_leader_and_is_not_says_who_is(
    other: tuple[Asker, int], shown: TokenFile
) -> None:
    """And hands nothing on: questions go no further than one step."""
    ask, port = other
    await lead(ask.town.client, "third_0b1c")
    async with httpx2.AsyncClient() as http:
        answer = await http.get(
            f"http://127.0.0.1:{port}/v1/cluster",
            headers={FORWARDED: "us", "Authorization": f"Bearer {shown.token}"},
        )
    assert answer.status_code == 503
    assert answer.json()["error"] == "us took them for who decides; third does"


async def test_a_new_leader_is_asked_when_the_old_one_says_so(
    other: tuple[Asker, int], shown: TokenFile
) -> None:
    """The Lease is read again at once, though it was read a moment ago."""
    ask, port = other
    client = ask.town.client
    await add_pod(client, "old", "127.0.0.2")
    await add_pod(client, "them", "127.0.0.1")
    await lead(client, "old_1")
    async with relaying(client, port, token=shown) as relay:
        assert not await relay.leads()
        await lead(client, "them_2")
        told = await standby(ask.town, relay, "/v1/cluster")
    assert (told.status_code, told.headers[ANSWERED_BY]) == (200, "them")


async def test_a_leader_that_went_while_it_was_asked_leaves_the_answer_to_us(
    town: Town,
) -> None:
    """If the Lease is ours by then; also a question with a body, which was read already."""
    await town.node("a", mesh(4))
    await lead(town.client, "them_1")
    await add_pod(town.client, "them", "127.0.0.1")
    async with relaying(town.client, 9) as relay:
        assert not await relay.leads()
        await lead(town.client, "us_2")
        body = msgspec.json.encode(pod_object("q", 1))
        told = await standby(town, relay, "/v1/dry-run", body)
    assert told.status_code == 200
    assert len(told.json()["pods"]) == 1


async def test_two_that_take_each_other_for_the_leader_come_to_an_end(town: Town) -> None:
    """Whatever the Lease says, and to whom: a question is asked twice at most."""
    await lead(town.client, "ghost_1")
    await add_pod(town.client, "ghost", "127.0.0.1")
    port = 0
    async with relaying(town.client, 1, me="b") as far:
        application = app.build(town.extender.desk, relay=far)
        async with (
            serve_on("127.0.0.1", application) as port,
            relaying(town.client, port, me="a") as near,
        ):
            told = await standby(town, near, "/v1/cluster")
    assert told.status_code == 503
    assert "ghost does, and tells it: a took b for who decides; ghost does" in told.json()["error"]


class Reader:
    """Stands before the API server: `silent` lets it answer nobody."""

    def __init__(self, client: AioKubeClient) -> None:
        self.client = client
        self.silent = False
        self.asked = 0

    async def get(self, path: str) -> bytes:
        """Read."""
        self.asked += 1
        if self.silent:
            raise TimeoutError
        return await self.client.get(path)


async def test_the_lease_is_read_again_after_a_while(town: Town) -> None:
    """kube-scheduler gives it up within seconds; the API server is not asked at each question."""
    now = [0.0]
    reader = Reader(town.client)
    leader = Leader(reader, "gputopo-system/gputopo-scheduler", me="us", clock=lambda: now[0])
    await lead(town.client, "them_0b1c")
    assert await leader.elsewhere() == "them"
    await lead(town.client, "us_2")
    assert await leader.elsewhere() == "them"
    assert reader.asked == 1
    now[0] += KNOWN_SECONDS
    assert await leader.elsewhere() is None


async def test_an_api_server_that_is_away_leaves_the_leader_where_it_was(town: Town) -> None:
    """It may be well, and is asked where it was found before."""
    now = [0.0]
    reader = Reader(town.client)
    leader = Leader(reader, "gputopo-system/gputopo-scheduler", me="us", clock=lambda: now[0])
    await lead(town.client, "them_0b1c")
    await add_pod(town.client, "them", "10.0.0.7")
    assert await leader.elsewhere() == "them"
    assert await leader.address("them") == "10.0.0.7"
    reader.silent = True
    now[0] += KNOWN_SECONDS
    asked = reader.asked
    for _ in range(3):
        assert await leader.elsewhere() == "them"
        assert await leader.address("them") == "10.0.0.7"
    assert reader.asked == asked + 1
    reader.silent = False
    await lead(town.client, "third_1")
    now[0] += AWAY_SECONDS
    assert await leader.elsewhere() == "third"


async def test_many_questions_at_once_read_the_lease_once(town: Town) -> None:
    """Who comes while it is read waits for that; who wants it anew gets another reading."""
    reader = Reader(town.client)
    leader = Leader(reader, "gputopo-system/gputopo-scheduler", me="us", clock=lambda: 0.0)
    await lead(town.client, "them_0b1c")
    found = await asyncio.gather(*(leader.elsewhere() for _ in range(20)))
    assert (set(found), reader.asked) == ({"them"}, 1)
    await leader.elsewhere(anew=True)
    assert reader.asked == 2


async def test_the_lease_has_gone_with_its_namespace(town: Town) -> None:
    """Nobody knows who leads, and everybody answers for himself."""
    await lead(town.client, "them_1")
    await town.client.delete(f"{LEASES}/gputopo-scheduler")
    leader = Leader(
        town.client,
        "gputopo-system/gputopo-scheduler",
        me="us",
        clock=asyncio.get_running_loop().time,
    )
    assert await leader.elsewhere() is None
