"""Which page is where. Everything is read; every answer carries the content policy."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from scheduler.dashboard.guard import Guard
from scheduler.dashboard.pages import Page, Pages, Sources
from scheduler.dashboard.rendering import STATIC, Renderer
from scheduler.explain.access import Access
from scheduler.explain.relay import Relay


def build(sources: Sources, api: ASGIApp, access: Access, relay: Relay | None = None) -> Starlette:
    """Return the pages with the API beneath them. `access` is the API's too.

    Where `relay` knows that another replica decides, its pages are shown.
    """
    renderer = Renderer(sources.feed.now, relay)
    pages = Pages(sources, renderer, relay)
    shown: dict[str, Page] = {
        "/": pages.cluster,
        "/nodes": pages.nodes,
        "/nodes/{node}": pages.node,
        "/pods": pages.pods,
        "/pods/{namespace}/{name}": pages.pod,
        "/events": pages.events,
    }
    guard = Guard(access, renderer.render, renderer.version)
    application = Starlette(
        routes=[
            *(Route(path, renderer.answering(page)) for path, page in shown.items()),
            Route("/sign-in", guard.sign_in, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
    )
    # Not a Mount: its pattern does not match a path with a line break in it.
    application.router.default = api
    application.add_middleware(guard.wrap)
    return application
