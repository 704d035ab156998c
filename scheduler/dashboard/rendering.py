"""Templates -> answers. What is put into a template is text, unless svg.py made it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from scheduler.dashboard import views
from scheduler.explain.errors import ExplainError
from scheduler.explain.relay import Relay

STATIC: Final = Path(__file__).parent / "static"
_TEMPLATES: Final = Path(__file__).parent / "templates"

Page = Callable[[Request], Awaitable[Response]]


class Renderer:
    """Fills templates. `now` gives Unix seconds, by which ages are told."""

    def __init__(self, now: Callable[[], float], relay: Relay | None = None) -> None:
        self._now = now
        self._relay = relay
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["path"] = quote_segment
        self._templates.filters["count"] = views.count_of
        self.version = self._templates.globals["version"] = _version()

    def render(
        self, request: Request, template: str, status: int = HTTPStatus.OK, **context: Any
    ) -> Response:
        """Fill a template."""
        now = self._now()
        text = self._templates.get_template(template).render(
            root=root_of(request),
            place=request.url.path.split("/")[1],
            ago=lambda text: views.ago(text, now),
            **context,
        )
        return HTMLResponse(text, status, {"Cache-Control": "no-store"})

    def answering(self, page: Page) -> Page:
        """Return the page, or that of the replica that decides, with errors as pages."""

        async def endpoint(request: Request) -> Response:
            """Answer with the page, or with one that says what is wrong."""
            try:
                there = None if self._relay is None else await self._relay.hand_on(request)
                return await page(request) if there is None else there
            except ExplainError as error:
                phrase = HTTPStatus(error.status).phrase
                return self.render(
                    request, "error.html", error.status, title=phrase, text=str(error)
                )

        return endpoint


def quote_segment(text: str) -> str:
    """Write a name as one segment of an address."""
    return quote(text, safe="")


def root_of(request: Request) -> str:
    """Return the way from a page back to the root: it works behind any proxy's prefix."""
    depth = request.scope["path"].count("/") - request.scope.get("root_path", "").count("/") - 1
    return "../" * depth or "./"


def _version() -> str:
    """Return what changes when a static file does: a browser then fetches it anew."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
