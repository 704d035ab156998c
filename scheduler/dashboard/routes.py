"""The pages and what they fetch. Everything is read; every answer carries the content policy."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from scheduler.dashboard import views
from scheduler.dashboard.feed import Feed
from scheduler.dashboard.guard import Guard
from scheduler.dashboard.machine import colours_of, draw_machine, gpu_class, matrix
from scheduler.explain.desk import Desk
from scheduler.explain.errors import BadRequestError, ExplainError, UnknownNodeError
from scheduler.explain.shapes import NodeLine, PodAnswer
from scheduler.explain.tokens import TokenFile

TILES: Final = 60
"""Up to so many nodes are shown GPU by GPU; more are cells of a heat map."""

PAGE: Final = 100
"""Nodes or pods on one page of a list."""

TOP: Final = 10
"""Nodes of a decision whose scores are drawn."""

_HERE: Final = Path(__file__).parent

Page = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger("scheduler.dashboard")


def build(desk: Desk, feed: Feed, api: ASGIApp, token: TokenFile | None = None) -> Starlette:
    """Return the pages with the API beneath them. `token` is the one that the API wants."""
    pages = Pages(desk, feed)
    shown: dict[str, Page] = {
        "/": pages.cluster,
        "/nodes": pages.nodes,
        "/nodes/{node}": pages.node,
        "/pods": pages.pods,
        "/pods/{namespace}/{name}": pages.pod,
    }
    guard = Guard(token, pages.render)
    static = StaticFiles(directory=_HERE / "static")
    application = Starlette(
        routes=[
            *(Route(path, pages.answering(page)) for path, page in shown.items()),
            Route("/events", pages.answering(pages.events)),
            Route("/sign-in", guard.sign_in, methods=["GET", "POST"]),
            Mount("/static", static),
        ]
    )
    # Not a Mount: its pattern does not match a path with a line break in it.
    application.router.default = api
    application.add_middleware(guard.wrap)
    return application


class Pages:
    """Renders the pages."""

    def __init__(self, desk: Desk, feed: Feed) -> None:
        self._desk = desk
        self._feed = feed
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["path"] = lambda text: quote(text, safe="")
        self._templates.filters["count"] = views.count_of
        self._templates.globals["version"] = _version()

    def answering(self, page: Page) -> Page:
        """Return the page with its errors as pages."""

        async def endpoint(request: Request) -> Response:
            """Answer with the page, or with one that says what is wrong."""
            try:
                return await page(request)
            except ExplainError as error:
                return self.render(
                    request,
                    "error.html",
                    error.status,
                    title=HTTPStatus(error.status).phrase,
                    text=str(error),
                )

        return endpoint

    async def cluster(self, request: Request) -> Response:
        """Show the whole cluster."""
        shade = _choose(request, "by", views.SHADES, "free")
        window = _choose(
            request, "over", {name: name for name in self._feed.history.windows}, "hour"
        )
        cluster = self._feed.cluster or await self._desk.cluster()
        nodes = await self._desk.nodes()
        small = len(nodes) <= TILES
        return self.render(
            request,
            "cluster.html",
            cluster=cluster,
            usage=views.show_usage(cluster),
            shade=shade,
            shades=views.SHADES,
            window=window,
            windows=list(self._feed.history.windows),
            tiles=[self._tile(node, shade) for node in nodes] if small else None,
            heat=None if small else views.show_heat_map(nodes, shade),
            heat_data=None if small else views.heat_data(nodes),
            fragmentation=views.show_fragmentation(self._feed.history, window),
            bandwidth=views.show_bandwidth(self._feed.history, window),
            waiting=self._desk.pods("pending", limit=8),
            bound=self._desk.pods("bound", limit=8),
        )

    def _tile(self, node: NodeLine, shade: views.Shade) -> views.Tile:
        try:
            gpus = self._desk.gpus(node.node)
        except UnknownNodeError:
            # It went while the others were looked at.
            gpus = ()
        return views.show_tile(node, gpus, shade)

    async def nodes(self, request: Request) -> Response:
        """List the nodes."""
        wanted = _given(request, "q")
        found = [node for node in await self._desk.nodes() if wanted.lower() in node.node.lower()]
        return self.render(
            request, "nodes.html", wanted=wanted, **_page(request, found), query=_keep(wanted)
        )

    async def node(self, request: Request) -> Response:
        """Show one node."""
        node = self._desk.node(request.path_params["node"])
        root = _root(request)
        pods = sorted({one.pod for gpu in node.gpus for one in gpu.holders if "/" in one.pod})
        colours = colours_of(node.gpus)
        return self.render(
            request,
            "node.html",
            node=node,
            drawing=draw_machine(node, links={pod: f"{root}pods/{_quote(pod)}" for pod in pods}),
            classes=[gpu_class(gpu, colours) for gpu in node.gpus],
            matrix=matrix(node),
        )

    async def pods(self, request: Request) -> Response:
        """List the pods that were asked about."""
        outcomes = {"pending": "Waiting", "bound": "Bound", "all": "All"}
        shown = _given(request, "show") or "pending"
        if shown not in outcomes:
            raise BadRequestError("show", f"{shown[:40]!r} is none of {', '.join(outcomes)}")
        found = self._desk.pods(None if shown == "all" else shown, limit=10_000)
        return self.render(
            request,
            "pods.html",
            shown=shown,
            outcomes=outcomes,
            **_page(request, found),
            query=f"show={shown}&",
        )

    async def pod(self, request: Request) -> Response:
        """Show what was decided about a pod, and why."""
        pod = self._desk.pod(request.path_params["namespace"], request.path_params["name"], top=TOP)
        decision = pod.decision
        colours = {} if decision is None else views.strategy_colours(decision)
        scores = () if decision is None else decision.nodes
        return self.render(
            request,
            "pod.html",
            pod=pod,
            summary=views.summarise(pod),
            decision=decision,
            colours=colours,
            bars=[views.show_score(score, colours) for score in scores],
            drawing=self._draw_choice(pod),
        )

    def _draw_choice(self, pod: PodAnswer) -> tuple[str, Any] | None:
        """Draw the node that the pod has or would have; None if there is none, or no more."""
        decision = pod.decision
        if decision is None or not decision.options:
            return None
        name = decision.options[0].node if pod.binding is None else pod.binding.node
        try:
            node = self._desk.node(name)
        except UnknownNodeError:
            return None
        uuids: set[str] = set()
        if pod.binding is not None:
            uuids = {uuid for given in pod.binding.containers.values() for uuid in given}
        else:
            uuids = {gpu.uuid for gpu in decision.options[0].gpus}
        chosen = {gpu.position for gpu in node.gpus if gpu.uuid in uuids}
        return name, draw_machine(node, chosen=chosen)

    async def events(self, request: Request) -> Response:  # noqa: ARG002 -- as the others
        """Tell of changes for as long as the page is open."""
        self._feed.admit()
        return StreamingResponse(
            self._feed.watch(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def render(
        self, request: Request, template: str, status: int = HTTPStatus.OK, **context: Any
    ) -> Response:
        """Fill a template."""
        text = self._templates.get_template(template).render(
            root=_root(request),
            place=request.url.path.split("/")[1],
            ago=lambda text: views.ago(text, self._feed.now()),
            live=self._feed.version,
            **context,
        )
        return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _choose(request: Request, name: str, known: Any, default: str) -> Any:
    given = _given(request, name) or default
    if given not in known:
        raise BadRequestError(name, f"{given[:40]!r} is none of {', '.join(known)}")
    return known[given]


def _given(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _page(request: Request, found: list[Any]) -> dict[str, Any]:
    """Cut one page out of a list."""
    text = _given(request, "page") or "1"
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 100_000):
        raise BadRequestError("page", f"{text[:40]!r} is not the number of a page")
    pages = max(1, -(-len(found) // PAGE))
    page = min(int(text[:6]), pages)
    return {
        "found": found[(page - 1) * PAGE : page * PAGE],
        "total": len(found),
        "page": page,
        "pages": pages,
    }


def _keep(wanted: str) -> str:
    return f"q={quote(wanted, safe='')}&" if wanted else ""


def _quote(pod: str) -> str:
    return "/".join(quote(part, safe="") for part in pod.split("/"))


def _root(request: Request) -> str:
    """Return the way from a page back to the root: it works behind any proxy's prefix."""
    depth = request.scope["path"].count("/") - request.scope.get("root_path", "").count("/") - 1
    return "../" * depth or "./"


def _version() -> str:
    """Return what changes when a static file does: a browser then fetches it anew."""
    digest = hashlib.sha256()
    for path in sorted((_HERE / "static").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
