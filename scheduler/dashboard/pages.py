"""The pages: each asks for what it shows, and fills its template."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scheduler.dashboard import views
from scheduler.dashboard.feed import Feed
from scheduler.dashboard.machine import Drawing, colours_of, draw_machine, gpu_class, matrix
from scheduler.dashboard.rendering import Page, Renderer, quote_segment, root_of
from scheduler.explain.desk import Desk
from scheduler.explain.errors import (
    BadRequestError,
    UnaskedError,
    UnknownNodeError,
)
from scheduler.explain.fleet_shapes import NodeLine
from scheduler.explain.relay import Relay
from scheduler.explain.shapes import PodAnswer, PodLine
from scheduler.explain.store import Store
from scheduler.explain.unasked import WaitingPod, WaitingPods, show_waiting
from scheduler.explain.views import show_line

__all__ = ["Page", "Pages", "Sources"]

TILES: Final = 60
"""Up to so many nodes are shown GPU by GPU; more are cells of a heat map."""

PAGE: Final = 100
"""Nodes or pods on one page of a list."""

RECENT: Final = 1000
"""Decisions that can be leafed through, the newest."""

TOP: Final = 10
"""Nodes of a decision whose scores are drawn."""

FEW: Final = 8
"""Pods of a kind on the cluster's page."""

_KINDS: Final = {"waiting": "Waiting", "bound": "Bound", "all": "Decided lately"}

_T = TypeVar("_T")


class Sources(msgspec.Struct, frozen=True):
    """Where pages get what they show."""

    desk: Desk
    store: Store
    waiting: WaitingPods
    feed: Feed


class Pages:
    """Answers with pages."""

    def __init__(self, sources: Sources, renderer: Renderer, relay: Relay | None = None) -> None:
        self._desk = sources.desk
        self._store = sources.store
        self._waiting = sources.waiting
        self._feed = sources.feed
        self._relay = relay
        self._render = renderer.render

    async def cluster(self, request: Request) -> Response:
        """Show the whole cluster."""
        shade = _choose(request, "by", views.SHADES, "free")
        windows = {name: name for name in self._feed.history.windows}
        window = _choose(request, "over", windows, "hour")
        cluster = await self._feed.latest()
        nodes = await self._feed.nodes()
        small = len(nodes) <= TILES
        waiting = self._waiting.oldest_first()
        return self._render(
            request,
            "cluster.html",
            cluster=cluster,
            usage=views.show_usage(cluster),
            shade=shade,
            shades=views.SHADES,
            window=window,
            windows=list(windows),
            tiles=[self._tile(node, shade) for node in nodes] if small else None,
            # Beside the loop: 5,000 nodes take 15 ms, and a pod may be asked about meanwhile.
            heat=None if small else await asyncio.to_thread(views.show_heat_map, nodes, shade),
            heat_data=None if small else views.heat_data(nodes),
            fragmentation=views.show_fragmentation(self._feed.history, window),
            bandwidth=views.show_bandwidth(self._feed.history, window),
            waiting_count=len(waiting),
            waiting=self._lines(waiting[:FEW]),
            bound=self._desk.pods("bound", limit=FEW),
        )

    def _tile(self, node: NodeLine, shade: views.Shade) -> views.Tile:
        try:
            gpus = self._desk.gpus(node.node)
        except UnknownNodeError:
            # It went while the others were looked at.
            gpus = ()
        return views.show_tile(node, gpus, shade)

    def _lines(self, pods: Sequence[WaitingPod]) -> list[PodLine]:
        """Return the lines of waiting pods: ours where we were asked, else kube-scheduler's."""
        lines = []
        for pod in pods:
            record = self._store.get(pod.uid)
            lines.append(show_waiting(pod, None if record is None else show_line(record)))
        return lines

    async def nodes(self, request: Request) -> Response:
        """List the nodes."""
        wanted = _given(request, "q")
        found = [node for node in await self._feed.nodes() if wanted.lower() in node.node.lower()]
        shown, leaf = _leaf(request, found)
        query = f"q={quote_segment(wanted)}&" if wanted else ""
        return self._render(
            request, "nodes.html", wanted=wanted, found=shown, leaf=leaf, query=query
        )

    async def node(self, request: Request) -> Response:
        """Show one node."""
        node = self._desk.node(request.path_params["node"])
        root = root_of(request)
        pods = sorted({one.pod for gpu in node.gpus for one in gpu.holders if "/" in one.pod})
        links = {pod: f"{root}pods/{'/'.join(map(quote_segment, pod.split('/')))}" for pod in pods}
        colours = colours_of(node.gpus)
        return self._render(
            request,
            "node.html",
            node=node,
            drawing=draw_machine(node, links=links),
            classes=[gpu_class(gpu, colours) for gpu in node.gpus],
            matrix=matrix(node),
        )

    async def pods(self, request: Request) -> Response:
        """List the pods that wait, or that were decided on."""
        shown = _given(request, "show") or "waiting"
        if shown not in _KINDS:
            raise BadRequestError("show", f"{shown[:40]!r} is none of {', '.join(_KINDS)}")
        lines: list[PodLine]
        if shown == "waiting":
            some, leaf = _leaf(request, self._waiting.oldest_first())
            lines = self._lines(some)
        else:
            found = self._desk.pods(None if shown == "all" else shown, limit=RECENT)
            lines, leaf = _leaf(request, found)
        return self._render(
            request,
            "pods.html",
            shown=shown,
            kinds=_KINDS,
            found=lines,
            leaf=leaf,
            query=f"show={shown}&",
        )

    async def pod(self, request: Request) -> Response:
        """Show what was decided about a pod, and why."""
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        waiting = self._waiting.find(namespace, name)
        try:
            pod = self._desk.pod(namespace, name, top=TOP)
        except UnaskedError:
            if waiting is None:
                raise
            return self._render(request, "waiting.html", pod=waiting)
        decision = pod.decision
        colours = {} if decision is None else views.strategy_colours(decision)
        scores = () if decision is None else decision.nodes
        return self._render(
            request,
            "pod.html",
            pod=pod,
            summary=views.summarise(pod),
            said="" if waiting is None else waiting.reason,
            decision=decision,
            colours=colours,
            bars=[views.show_score(score, colours) for score in scores],
            drawing=self._draw_choice(pod),
        )

    def _draw_choice(self, pod: PodAnswer) -> tuple[str, Drawing] | None:
        """Draw the node that the pod has or would have; None if there is none, or no more."""
        decision = pod.decision
        if decision is None or not decision.options:
            return None
        name = decision.options[0].node if pod.binding is None else pod.binding.node
        try:
            node = self._desk.node(name)
        except UnknownNodeError:
            return None
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
            self._changes(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _changes(self) -> AsyncIterator[bytes]:
        """Yield events for as long as we decide: a page then goes to who does."""
        async with contextlib.aclosing(self._feed.watch()) as events:
            async for event in events:
                yield event
                if self._relay is not None and not await self._relay.leads():
                    return


def _choose(request: Request, name: str, known: Mapping[str, _T], default: str) -> _T:
    given = _given(request, name) or default
    if given not in known:
        raise BadRequestError(name, f"{given[:40]!r} is none of {', '.join(known)}")
    return known[given]


def _given(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _leaf(request: Request, found: Sequence[_T]) -> tuple[list[_T], dict[str, Any]]:
    """Return one page of a list, and which it is of how many."""
    text = _given(request, "page") or "1"
    if not (text.isascii() and text.isdigit() and int(text[:6]) >= 1):
        raise BadRequestError("page", f"{text[:40]!r} is not the number of a page")
    pages = max(1, -(-len(found) // PAGE))
    page = min(int(text[:6]), pages)
    shown = [*found[(page - 1) * PAGE : page * PAGE]]
    return shown, {"total": len(found), "page": page, "pages": pages}
