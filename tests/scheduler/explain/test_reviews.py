"""Tokens of the cluster's: whose they are and what he may, as the API server says it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ApiError, UnreachableError
from scheduler.explain import app
from scheduler.explain.access import Access
from scheduler.explain.errors import ForbiddenError, ReviewError, TokenError
from scheduler.explain.reviews import (
    AT_ONCE,
    GRANTED_SECONDS,
    MOST_KNOWN,
    REFUSED_SECONDS,
    Reviews,
    check_audience,
)
from tests.scheduler.conftest import Town

AUDIENCE = "gputopo-explain"
READER = "system:serviceaccount:portal:portal"


def token_of(user: str, audience: object = AUDIENCE) -> str:
    """Make what looks like a token of a user; the API server below believes it."""
    parts = ({"alg": "RS256"}, {"aud": audience, "sub": user}, {"signature": user})
    encoded = (base64.urlsafe_b64encode(msgspec.json.encode(part)) for part in parts)
    return b".".join(encoded).decode().replace("=", "")


class Registry:
    """Stands in for the API server: it knows `users`, and that READER may read decisions."""

    def __init__(self) -> None:
        self.users = {token_of(name): name for name in (READER, "eve")}
        self.audiences: list[str] | None = [AUDIENCE]
        self.problem: Exception | None = None
        self.asked: list[Any] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.full = asyncio.Event()
        self.waiting = 0
        self.most = 0

    async def post(self, path: str, body: object) -> bytes:
        """Answer a review."""
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting == AT_ONCE:
            self.full.set()
        await self.answers.wait()
        self.waiting -= 1
        if self.problem is not None:
            raise self.problem
        asked = msgspec.json.decode(msgspec.json.encode(body))
        self.asked.append(asked)
        assert path.endswith({"TokenReview": "/tokenreviews"}.get(asked["kind"], "accessreviews"))
        spec = asked["spec"]
        if asked["kind"] == "SubjectAccessReview":
            return msgspec.json.encode({"status": {"allowed": spec["user"] == READER}})
        user = self.users.get(spec["token"])
        if user is None:
            return msgspec.json.encode({"status": {"error": "[invalid bearer token]"}})
        about = {"username": user, "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}
        status = {"authenticated": True, "user": about}
        if self.audiences is not None:
            status["audiences"] = self.audiences
        return msgspec.json.encode({"status": status})


def make(registry: Registry, now: list[float] | None = None) -> Reviews:
    """Ask the registry, at a time that the test moves."""
    at = now or [0.0]
    return Reviews(registry, AUDIENCE, clock=lambda: at[0])


async def test_the_owner_of_a_token_is_asked_for_his_right() -> None:
    """The token is reviewed for our audience alone; the right is asked with all of the user."""
    registry = Registry()
    await make(registry).check(token_of(READER))
    token, access = registry.asked
    assert (token["apiVersion"], token["kind"]) == ("authentication.k8s.io/v1", "TokenReview")
    assert token["spec"] == {"token": token_of(READER), "audiences": [AUDIENCE]}
    assert access["apiVersion"] == "authorization.k8s.io/v1"
    assert access["spec"] == {
        "user": READER,
        "uid": "7",
        "groups": ["g"],
        "extra": {"k": ["v"]},
        "resourceAttributes": {"group": "gputopo.dev", "resource": "decisions", "verb": "get"},
    }


async def test_who_may_not_read_decisions_is_told_what_would_help() -> None:
    """By name, and with the role that gives the right."""
    with pytest.raises(ForbiddenError, match=r"^eve may not get .* gputopo-explain-reader"):
        await make(Registry()).check(token_of("eve"))


async def test_a_token_that_the_api_server_does_not_know_is_refused() -> None:
    """With the API server's words."""
    with pytest.raises(TokenError, match=r"does not take the token for ours: \[invalid bearer"):
        await make(Registry()).check(token_of("nobody"))


@pytest.mark.parametrize("audiences", [None, [], ["https://kubernetes.default.svc"]])
async def test_a_review_that_does_not_name_our_audience_is_a_refusal(
    audiences: list[str] | None,
) -> None:
    """So answers an authenticator that knows of no audiences: the token is the API server's."""
    registry = Registry()
    registry.audiences = audiences
    with pytest.raises(TokenError):
        await make(registry).check(token_of(READER))


NOT_OURS = [
    (token_of(READER, "https://kubernetes.default.svc"), "kubectl create token ACCOUNT --audience"),
    (token_of(READER, ["a", "b"]), "the token is not for gputopo-explain"),
    (token_of(READER, 7), "neither the token of the file nor one of the cluster's"),
    ("admin", "neither the token of the file nor one of the cluster's"),
    ("a.b.c", "neither"),
    (token_of(READER) + "." * 20_000, "neither"),
    ("a." + base64.urlsafe_b64encode(b'{"a":' + b"[" * 9000).decode() + ".c", "neither"),
]


@pytest.mark.parametrize(("token", "text"), NOT_OURS)
async def test_what_is_no_token_for_us_goes_no_further(token: str, text: str) -> None:
    """A token for the API server itself is not sent over the network again, nor is noise."""
    registry = Registry()
    with pytest.raises(TokenError, match=text):
        await make(registry).check(token)
    assert registry.asked == []


@given(st.text() | st.binary().map(lambda raw: f"a.{base64.urlsafe_b64encode(raw).decode()}.b"))
def test_whatever_is_given_is_no_worse_than_no_token(token: str) -> None:
    """Any text at all."""
    with pytest.raises(TokenError):
        check_audience(token, AUDIENCE)


async def test_answers_are_believed_for_a_while() -> None:
    """Grants for a minute, refusals for ten seconds; a right that comes late is found."""
    registry, now = Registry(), [0.0]
    reviews = make(registry, now)
    for _ in range(3):
        await reviews.check(token_of(READER))
        with pytest.raises(ForbiddenError, match=r"^eve may not get decisions"):
            await reviews.check(token_of("eve"))
    assert len(registry.asked) == 4
    now[0] = REFUSED_SECONDS
    with pytest.raises(ForbiddenError):
        await reviews.check(token_of("eve"))
    assert len(registry.asked) == 6
    registry.users.clear()
    await reviews.check(token_of(READER))
    now[0] = GRANTED_SECONDS
    with pytest.raises(TokenError):
        await reviews.check(token_of(READER))


async def test_strangers_do_not_push_out_who_was_let_in() -> None:
    """However many come, a bounded number of them is remembered."""
    registry = Registry()
    reviews = make(registry)
    await reviews.check(token_of(READER))
    for number in range(MOST_KNOWN + 10):
        with pytest.raises(TokenError):
            await reviews.check(token_of(f"stranger {number}"))
    asked = len(registry.asked)
    await reviews.check(token_of(READER))
    assert len(registry.asked) == asked
    for number, again in ((MOST_KNOWN, 0), (0, 1)):
        with pytest.raises(TokenError):
            await reviews.check(token_of(f"stranger {number}"))
        assert len(registry.asked) == asked + again


async def test_a_few_are_asked_about_at_a_time_and_each_once() -> None:
    """The connections are those that bind pods."""
    registry = Registry()
    registry.answers.clear()
    reviews = make(registry)
    names = [READER] * 20 + [f"stranger {number}" for number in range(20)]
    asking = [asyncio.create_task(reviews.check(token_of(name))) for name in names]
    await registry.full.wait()
    registry.answers.set()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert registry.most == AT_ONCE
    assert [error for error in ended[:20] if error is not None] == []
    assert all(isinstance(error, TokenError) for error in ended[20:])


PROBLEMS = [
    (UnreachableError("POST: refused"), "POST: refused"),
    (ApiError(403, "Forbidden", "tokenreviews is forbidden"), "tokenreviews is forbidden"),
]


@pytest.mark.parametrize(("problem", "text"), PROBLEMS)
async def test_an_api_server_that_does_not_say_is_not_a_refusal(
    town: Town, problem: Exception, text: str
) -> None:
    """503 with its words; who was let in before stays in, and it is asked again."""
    registry = Registry()
    reviews = make(registry)
    await reviews.check(token_of(READER))
    registry.problem = problem
    registry.users[token_of("late")] = READER
    access = Access(reviews=reviews)
    transport = httpx2.ASGITransport(
        app.build(town.extender.desk, access), client=("10.0.0.1", 40_000)
    )
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:

        async def ask(name: str) -> httpx2.Response:
            """Ask with a user's token."""
            headers = {"Authorization": f"Bearer {token_of(name)}"}
            return await http.get("/v1/cluster", headers=headers)

        assert (await ask(READER)).status_code == 200
        answer = await ask("late")
        assert answer.status_code == 503
        assert text in answer.json()["error"]
        registry.problem = None
        assert (await ask("late")).status_code == 200


async def test_an_api_server_that_hangs_is_not_waited_for() -> None:
    """The answer comes all the same, for everybody who waits his turn too."""
    registry = Registry()
    registry.answers.clear()
    reviews = Reviews(registry, AUDIENCE, clock=lambda: 0.0, patience=0.05)
    names = [f"stranger {number}" for number in range(3 * AT_ONCE)]
    ended = await asyncio.gather(
        *(reviews.check(token_of(name)) for name in names), return_exceptions=True
    )
    assert {type(error) for error in ended} == {ReviewError}
    assert "did not answer within" in str(ended[0])
