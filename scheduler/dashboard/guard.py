"""Who may see the dashboard, and what a browser may do with it.

Who needs a token signs in with it: a cookie then stands for it, to the API as well.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.explain.access import Access
from scheduler.explain.errors import ExplainError, TokenError

COOKIE: Final = "gputopo-session"

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline, and nobody may frame it."""

HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_MOST_BYTES: Final = 16_384
_FREE: Final = ("/static/", "/sign-in")

Render = Callable[..., Response]


class Guard:
    """Checks requests before anything answers them.

    `render` fills a template, `version` is that of the static files.
    """

    def __init__(self, access: Access, render: Render, version: str) -> None:
        self._access = access
        self._render = render
        self._version = version

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind the guard."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            """Check a request, then hand it on."""
            if scope["type"] != "http":
                await app(scope, receive, send)
                return

            async def send_safely(message: Message) -> None:
                """Add the headers to whatever is answered."""
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        headers[name] = value
                    if scope["path"].startswith("/static/"):
                        headers["Cache-Control"] = self._keeping(scope)
                await send(message)

            await (await self._stop(scope) or app)(scope, receive, send_safely)

        return guarded

    def _keeping(self, scope: Scope) -> str:
        """Return how long a static file may be kept: for ever, if it is of the version asked for.

        A page of the replica that decides may be of another version than our files.
        """
        ours = Request(scope).query_params.get("v") == self._version
        return "public, max-age=31536000, immutable" if ours else "no-store"

    async def _stop(self, scope: Scope) -> ASGIApp | None:
        """Return what answers instead; None if all is well, or the API is to say what is not."""
        path = scope["path"]
        if path.startswith(_FREE):
            return None
        self._carry(scope)
        request = Request(scope)
        if path.startswith("/v1/") or path == "/openapi.json":
            return None
        try:
            await self._access.admit(request)
        except TokenError as error:
            return self._ask(request, error.status)
        except ExplainError as error:
            title = HTTPStatus(error.status).phrase
            return self._render(request, "error.html", error.status, title=title, text=str(error))
        return None

    def _carry(self, scope: Scope) -> None:
        """Let the cookie stand for the token, unless the caller sent one of his own."""
        request = Request(scope)
        given = request.cookies.get(COOKIE, "")
        if not given or "authorization" in request.headers:
            return
        token = self._access.token
        if token is not None and hmac.compare_digest(
            given.encode(), session_of(token.token).encode()
        ):
            given = token.token
        header = (b"authorization", f"Bearer {given}".encode())
        scope["headers"] = [*scope["headers"], header]

    def _ask(self, request: Request, status: int = HTTPStatus.OK, problem: str = "") -> Response:
        audience = self._access.audience
        return self._render(request, "sign_in.html", status, problem=problem, audience=audience)

    async def sign_in(self, request: Request) -> Response:
        """Take the token from a form and give the cookie for it.

        One of the cluster's own is its own cookie: it opens nothing but this, and not for long.
        """
        if request.method == "GET":
            return self._ask(request)
        text = (await _read(request)).decode(errors="replace")
        given = parse_qs(text).get("token", [""])[0].strip()
        try:
            await self._access.check(f"Bearer {given}")
        except TokenError as error:
            return self._ask(request, error.status, error.problem)
        except ExplainError as error:
            return self._ask(request, error.status, str(error))
        token = self._access.token
        secret = token is not None and token.fits(given)
        answer = RedirectResponse("./", HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            session_of(given) if secret else given,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer


def session_of(token: str) -> str:
    """Return what a cookie holds: proof of the token that is not the token."""
    return hmac.digest(token.encode(), b"gputopo dashboard session", "sha256").hex()


async def _read(request: Request) -> bytes:
    """Read a small body; of a large one the beginning, which then is no token."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            break
    return body[:_MOST_BYTES]
