"""Tokens of the cluster's own, checked by its API server: whose they are, and what he may read.

A TokenReview for an audience of ours says who it is: a token for the API server itself, which is
worth more than our answers, is refused unread, and one for us is worth nothing there. A
SubjectAccessReview says whether he may `get` the resource ``decisions.gputopo.dev``, which exists
in RBAC only. Both answers are believed for a while, refusals too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from runtime.errors import KubeError
from scheduler.explain.errors import ExplainError, ForbiddenError, ReviewError, TokenError

GRANTED_SECONDS: Final = 60.0
"""How long a grant is believed: a token or a right that is taken away works so much longer."""

REFUSED_SECONDS: Final = 10.0

MOST_KNOWN: Final = 512
"""Grants, and refusals, that are remembered; strangers cannot push out who was let in."""

AT_ONCE: Final = 4
"""Tokens that are asked about at a time: the connections are those that bind pods."""

ASKING_SECONDS: Final = 5.0
"""How long a caller waits for the API server at most, his turn included."""

MOST_CHARACTERS: Final = 16_384

_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RIGHT: Final = {"group": "gputopo.dev", "resource": "decisions", "verb": "get"}

_log = structlog.get_logger("scheduler.explain")


Verdict = Callable[[], ExplainError | None]
"""Makes what to refuse with, anew each time: a traceback grows on what is raised; None lets in."""


class PostApi(Protocol):
    """The part of the API server's client that asking about tokens needs."""

    async def post(self, path: str, body: object) -> bytes:
        """Create."""


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: tuple[str, ...] | None = None
    error: str = ""


class _TokenReview(msgspec.Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(msgspec.Struct, frozen=True):
    allowed: bool = False


class _AccessReview(msgspec.Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


class _Claims(msgspec.Struct, frozen=True):
    aud: str | tuple[str, ...] = ()


class Reviews:
    """Asks about tokens for `audience`, and waits `patience` seconds for an answer.

    `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        api: PostApi,
        audience: str,
        *,
        clock: Callable[[], float],
        patience: float = ASKING_SECONDS,
    ) -> None:
        self._api = api
        self._patience = patience
        self.audience = audience
        self._granted = _Memory(GRANTED_SECONDS, clock)
        self._refused = _Memory(REFUSED_SECONDS, clock)
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def check(self, token: str) -> None:
        """Return if its owner may read decisions.

        Raises TokenError for a token that is not one of the cluster's for us, ForbiddenError for
        an owner who may not, ReviewError if the API server does not say in time.
        """
        key = hashlib.sha256(token.encode()).digest()
        verdict = self._known(key)
        if verdict is None:
            check_audience(token, self.audience)
            try:
                async with asyncio.timeout(self._patience), self._turn:
                    verdict = self._known(key) or await self._ask(key, token)
            except TimeoutError:
                raise ReviewError(f"it did not answer within {self._patience:g} s") from None
            except (KubeError, msgspec.DecodeError) as error:
                _log.warning("a token cannot be checked", error=str(error))
                raise ReviewError(str(error)) from None
        refusal = verdict()
        if refusal is not None:
            raise refusal

    def _known(self, key: bytes) -> Verdict | None:
        return self._refused.get(key) or self._granted.get(key)

    async def _ask(self, key: bytes, token: str) -> Verdict:
        status = await self._identify(token)
        # Who checks tokens but knows of no audiences names none: such a token is not for us.
        if not status.authenticated or self.audience not in (status.audiences or ()):
            why = f": {status.error[:200]}" if status.error else ""
            refused = partial(TokenError, f"the API server does not take the token for ours{why}")
            return self._refused.put(key, refused)
        if not await self._may(status.user):
            return self._refused.put(key, partial(ForbiddenError, status.user.username))
        return self._granted.put(key, _welcome)

    async def _identify(self, token: str) -> _TokenStatus:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        }
        return msgspec.json.decode(await self._api.post(_REVIEWS, asked), type=_TokenReview).status

    async def _may(self, user: _User) -> bool:
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.username,
                "uid": user.uid,
                "groups": user.groups or (),
                "extra": user.extra or {},
                "resourceAttributes": RIGHT,
            },
        }
        answer = await self._api.post(_ACCESS, asked)
        return msgspec.json.decode(answer, type=_AccessReview).status.allowed


def _welcome() -> None:
    """Refuse nobody."""


class _Memory:
    """What is believed for a while; the oldest goes when there is too much."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()

    def get(self, key: bytes) -> Verdict | None:
        until, value = self._known.get(key, (float("-inf"), None))
        return value if self._clock() < until else None

    def put(self, key: bytes, value: Verdict) -> Verdict:
        self._known[key] = self._clock() + self._seconds, value
        self._known.move_to_end(key)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return value


def check_audience(token: str, audience: str) -> None:
    """Raise TokenError unless a token says of itself that it is for `audience`.

    Nothing is believed by it: it spares the API server what cannot be right, and tells who took
    the wrong token.
    """
    try:
        _, payload, _ = token[:MOST_CHARACTERS].split(".")
        text = base64.b64decode(payload + "=" * (-len(payload) % 4), b"-_", validate=True)
        told = msgspec.json.decode(text, type=_Claims).aud
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise TokenError("it is neither the token of the file nor one of the cluster's") from None
    if audience not in ((told,) if isinstance(told, str) else told):
        raise TokenError(
            f"the token is not for {audience}: kubectl create token ACCOUNT --audience {audience}"
        )
