"""Who may see the dashboard, and what a browser may do with it.

With a token, a page is given to who signed in with it: a cookie then stands for the token, to the
API as well. Without one, only names of this machine are answered to: a foreign page whose name
was pointed at the loopback address after it was loaded must not read ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.dashboard.errors import StrangerError
from scheduler.explain.errors import TokenError
from scheduler.explain.settings import is_loopback
from scheduler.explain.tokens import TokenFile

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

_MOST_BYTES: Final = 4096
_FREE: Final = ("/static/", "/sign-in")

Render = Callable[..., Response]


class Guard:
    """Checks requests before anything answers them. `render` fills a template."""

    def __init__(self, token: TokenFile | None, render: Render) -> None:
        self._token = token
        self._render = render

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
                        headers["Cache-Control"] = "public, max-age=31536000, immutable"
                await send(message)

            await (self._stop(scope) or app)(scope, receive, send_safely)

        return guarded

    def _stop(self, scope: Scope) -> ASGIApp | None:
        """Return what answers instead; None if all is well."""
        request = Request(scope)
        if self._token is None:
            host = _host(request.headers.get("Host", ""))
            if is_loopback(host):
                return None
            error = StrangerError(host)
            return self._render(
                request, "error.html", error.status, title="Misdirected", text=str(error)
            )
        if scope["path"].startswith(_FREE):
            return None
        if self._signed_in(request):
            _carry(scope, self._token.token)
            return None
        try:
            self._token.check(request.headers.get("Authorization", ""))
        except TokenError:
            if scope["path"].startswith("/v1/") or scope["path"] == "/openapi.json":
                return None
            return self._render(request, "sign_in.html", HTTPStatus.UNAUTHORIZED, wrong=False)
        return None

    def _signed_in(self, request: Request) -> bool:
        given = request.cookies.get(COOKIE, "")
        return self._token is not None and hmac.compare_digest(
            given.encode(), session_of(self._token.token).encode()
        )

    async def sign_in(self, request: Request) -> Response:
        """Take the token from a form and give the cookie for it."""
        if request.method == "GET" or self._token is None:
            return self._render(request, "sign_in.html", wrong=False)
        given = parse_qs((await _read(request)).decode(errors="replace")).get("token", [""])[0]
        try:
            self._token.check(f"Bearer {given.strip()}")
        except TokenError:
            return self._render(request, "sign_in.html", HTTPStatus.UNAUTHORIZED, wrong=True)
        answer = RedirectResponse("./", HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            session_of(self._token.token),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer


def _host(header: str) -> str:
    """Return the name in a Host header, without the port; whatever does not read is no name."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


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


def _carry(scope: Scope, token: str) -> None:
    """Let the cookie stand for the token, unless the caller sent one of his own."""
    if "authorization" not in Headers(scope=scope):
        scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {token}".encode())]
