"""The verbs as functions from bytes to bytes: decode, ask the planner, encode, count.

Nothing may depend on the sequence of calls: kube-scheduler repeats them, reorders them and skips
prioritize.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from runtime.objects import Pod
from scheduler.engine.decision import Decision
from scheduler.engine.planner import HELD_ELSEWHERE, Planner
from scheduler.engine.plugins.free_gpus import FreeGpus
from scheduler.engine.plugins.held_back import HeldBack
from scheduler.engine.request import Demand, PodRequest
from scheduler.engine.reservations import Stage
from scheduler.errors import BindError, DemandError, NotReadyError, SchedulerError
from scheduler.explain.recorder import Recorder, Ticket
from scheduler.explain.traces import Traces
from scheduler.extender.wire import (
    BadBodyError,
    BindResult,
    ExtenderArgs,
    FilterResult,
    HostPriority,
    NodeItems,
    decode_args,
    decode_bind,
    decode_names,
    decode_nodes,
    encode,
)
from scheduler.kube.binder import Binder, PodRef
from scheduler.kube.inventory import Inventory
from scheduler.kube.pods import read_request
from scheduler.metrics import Metrics

NOT_SYNCED: Final = "the inventory is not complete yet"
NOT_SEEN: Final = "some of the nodes are not in the inventory yet"
PLANNED: Final = "GPUs that would do are planned for another pod"
BEHIND: Final = "the watches of nodes and pods are being renewed"
LEAVING: Final = "GPUs that kube-scheduler counts as free are not free yet"

BEST: Final = 10
"""The highest score that prioritize knows."""

PASSING_SECONDS: Final = 30.0
"""What has not passed by then will not: the pod is refused, and may evict others elsewhere."""

PASSING_KEPT: Final = 1024

REFUSALS_KEPT: Final = 32
"""Shapes of waiting pods whose refusal is remembered: their next try costs a comparison.

Each takes names and reasons of all nodes: 0.6 MB at 5,000 nodes.
"""

_log = structlog.get_logger("scheduler.extender")


class Candidates(msgspec.Struct, frozen=True):
    """The nodes of a request: their names, and how they came if they came whole."""

    names: list[str]
    items: dict[str, msgspec.Raw] | None = None

    def result(
        self, accepted: Sequence[str] = (), *, lasting: dict[str, str] | None = None
    ) -> bytes:
        """Encode filter's answer in the form of the question."""
        nodes, names = None, None
        if self.items is None:
            names = list(accepted)
        else:
            nodes = NodeItems(tuple(self.items[name] for name in accepted))
        return encode(
            FilterResult(
                nodes=nodes,
                node_names=names,
                failed_and_unresolvable_nodes=lasting or {},
            )
        )

    def refuse_all(self, reason: str) -> bytes:
        """Encode an answer that refuses every node for good, with one text."""
        return self.result(lasting=dict.fromkeys(self.names, _text(reason)))


class _Refused(msgspec.Struct, frozen=True):
    """A refusal that was given: the names as they came and as a set, the answer, and why."""

    raw: bytes
    names: frozenset[str]
    answer: bytes
    ticket: Ticket


class Handlers:
    """Filter, prioritize and bind. `clock` is monotonic seconds.

    `any_pod` places pods without GPUs too, instead of letting every node pass.
    """

    def __init__(
        self,
        planner: Planner,
        inventory: Inventory,
        binder: Binder,
        *,
        resource: str,
        clock: Callable[[], float],
        metrics: Metrics,
        recorder: Recorder,
        traces: Traces | None = None,
        any_pod: bool = False,
    ) -> None:
        self._planner = planner
        self._inventory = inventory
        self._binder = binder
        self._recorder = recorder
        self._traces = traces or Traces()
        self._resource = resource
        self._clock = clock
        self._metrics = metrics
        self._any_pod = any_pod
        self._refusals: OrderedDict[tuple[object, ...], _Refused] = OrderedDict()
        self._refused_at = 0
        self._passing: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def filter(self, body: bytes) -> bytes:
        """Answer with the shortlist, or why nobody will do; the best node's set is held."""
        try:
            outcome, answer = self._filter(decode_args("filter", body))
        except (BadBodyError, SchedulerError) as error:
            # Every pending pod asks while we are not ready: counted, but no line each.
            deferred = isinstance(error, NotReadyError)
            _log.log(
                logging.DEBUG if deferred else logging.WARNING, "filter failed", error=str(error)
            )
            outcome = "deferred" if deferred else "error"
            answer = encode(FilterResult(error=_text(str(error))))
        self._metrics.filters[outcome].inc()
        return answer

    def _filter(self, args: ExtenderArgs) -> tuple[str, bytes]:
        try:
            request = read_request(args.pod, self._resource, any_pod=self._any_pod)
            if request is None:
                candidates = self._candidates("filter", args)
                return "passed_through", candidates.result(candidates.names)
        except DemandError as error:
            self._recorder.refused(_unread(args.pod), str(error))
            return "refused", self._candidates("filter", args).refuse_all(str(error))
        try:
            self._planner.profile_of(request)
        except DemandError as error:
            self._recorder.refused(request, str(error))
            return "refused", self._candidates("filter", args).refuse_all(str(error))
        if not self._inventory.synced:
            raise NotReadyError(NOT_SYNCED)
        self._binder.remember(request)
        settled = self._settled_node(request)
        if settled is not None:
            candidates = self._candidates("filter", args)
            if settled not in candidates.names:
                raise NotReadyError(HELD_ELSEWHERE)
            return "accepted", candidates.result([settled])
        raw = bytes(args.node_names)
        known = self._refusal(request)
        if known is not None and known.raw == raw:
            self._recorder.repeated(request, known.ticket)
            return "repeated", known.answer
        candidates = self._candidates("filter", args)
        # kube-scheduler filters nodes side by side, and names them in the order they are done.
        if known is not None and args.nodes is None and known.names == set(candidates.names):
            self._recorder.repeated(request, known.ticket)
            return "repeated", known.answer
        return self._decide(request, args, candidates)

    def _decide(
        self, request: PodRequest, args: ExtenderArgs, candidates: Candidates
    ) -> tuple[str, bytes]:
        span = self._traces.begin("filter", request.uid)
        about: dict[str, str | int | float | bool] = {
            "k8s.namespace.name": request.namespace,
            "k8s.pod.name": request.name,
            "k8s.pod.uid": request.uid,
            "gputopo.gpus": request.demand.count,
            "gputopo.nodes": len(candidates.names),
        }
        try:
            outcome, answer = self._answer(request, args, candidates)
        except Exception as error:
            span.end(about, problem=str(error))
            raise
        span.end({**about, "gputopo.outcome": outcome})
        return outcome, answer

    def _answer(
        self, request: PodRequest, args: ExtenderArgs, candidates: Candidates
    ) -> tuple[str, bytes]:
        begun = time.perf_counter()
        decision = self._planner.plan(request, candidates.names, now=self._clock())
        ticket = self._recorder.decided(decision, time.perf_counter() - begun)
        if decision.chosen is not None:
            nodes = [option.node for option in decision.shortlist]
            return "accepted", candidates.result(nodes)
        try:
            answer = self._refuse(decision, candidates)
        except NotReadyError as error:
            self._recorder.deferred(request, str(error))
            raise
        if args.nodes is None:
            raw = bytes(args.node_names)
            refused = _Refused(raw, frozenset(candidates.names), answer, ticket)
            self._remember_refusal(request, refused)
        return "refused", answer

    def _settled_node(self, request: PodRequest) -> str | None:
        """Return the node of a pod that is bound, or may be: it can go nowhere else."""
        bound = self._inventory.bound(request.uid)
        if bound is not None:
            return bound.node
        claim = self._planner.cluster.claims.get(request.uid)
        if claim is not None and claim.stage is not Stage.HELD:
            return claim.node
        return None

    def _refuse(self, decision: Decision, candidates: Candidates) -> bytes:
        if not self._inventory.current:
            # What became free unheard of has woken the pod already, and will not do it again.
            raise NotReadyError(BEHIND)
        if decision.unknown:
            # An error is tried again by the clock: no event would wake the pod for these nodes.
            raise NotReadyError(NOT_SEEN)
        if self._planner.waits_for_plan(decision):
            # Likewise: a plan that is dropped is no event. One that is bound is, but too late.
            raise NotReadyError(PLANNED)
        passing = _passing(decision)
        if passing is not None and not self._lasts(decision.request.uid):
            raise NotReadyError(passing)
        for plugin, nodes in decision.counts().items():
            self._metrics.refused(plugin, nodes)
        # Never FailedNodes, which asks for evictions: kube-scheduler has passed these nodes, so its
        # trial finds no victim there. It says so in an order of nodes that changes at each try,
        # and a text that changes makes it spin.
        return candidates.result(
            lasting={
                decision.candidates[place]: text
                for refusal in decision.refusals
                for text in (_text(refusal.reason),)
                for place in refusal.places.tolist()
            }
        )

    def _lasts(self, uid: str) -> bool:
        """Return whether a pod was told for long, without a pause, that its reason will pass."""
        now = self._clock()
        since, last = self._passing.pop(uid, (now, now))
        self._passing[uid] = (since if now - last <= PASSING_SECONDS else now), now
        if len(self._passing) > PASSING_KEPT:
            self._passing.popitem(last=False)
        return now - self._passing[uid][0] > PASSING_SECONDS

    def _refusal(self, request: PodRequest) -> _Refused | None:
        """Return the last refusal of such a pod by the same cluster, if that is known."""
        if not self._inventory.current:
            return None
        if self._refused_at != self._planner.cluster.version:
            self._refused_at = self._planner.cluster.version
            self._refusals.clear()
        return self._refusals.get(request.shape)

    def _remember_refusal(self, request: PodRequest, refused: _Refused) -> None:
        if self._refused_at != self._planner.cluster.version:
            return
        self._refusals[request.shape] = refused
        self._refusals.move_to_end(request.shape)
        if len(self._refusals) > REFUSALS_KEPT:
            self._refusals.popitem(last=False)

    def _candidates(self, verb: str, args: ExtenderArgs) -> Candidates:
        if args.nodes is None:
            return Candidates(decode_names(verb, args.node_names))
        nodes = decode_nodes(verb, args.nodes)
        for node in nodes:
            if self._inventory.synced and not self._inventory.knows(node.metadata.name):
                self._inventory.learn(node, self._clock())
        names = [node.metadata.name for node in nodes]
        return Candidates(names, dict(zip(names, args.nodes.items or (), strict=True)))

    def prioritize(self, body: bytes) -> bytes:
        """Give 10 to the best node and 0 to the others. Raises BadBodyError and SchedulerError."""
        args = decode_args("prioritize", body)
        candidates = self._candidates("prioritize", args)
        best = self._best(args, candidates.names)
        return encode(
            [HostPriority(name, BEST if name == best else 0) for name in candidates.names]
        )

    def _best(self, args: ExtenderArgs, names: list[str]) -> str | None:
        try:
            request = read_request(args.pod, self._resource, any_pod=self._any_pod)
            if request is None or not self._inventory.synced:
                return None
            settled = self._settled_node(request)
            claim = self._planner.cluster.claims.get(request.uid)
            planned = settled or (claim.node if claim is not None else None)
            if planned in names:
                return planned
            chosen = self._planner.decide(request, names, now=self._clock()).chosen
        except DemandError:
            return None
        return None if chosen is None else chosen.node

    async def bind(self, body: bytes) -> bytes:
        """Bind, and answer with the error if the pod is not bound."""
        try:
            args = decode_bind(body)
            pod = PodRef(args.pod_namespace, args.pod_name, args.pod_uid)
            await self._binder.bind(pod, args.node)
        except BadBodyError as error:
            self._metrics.binds["error"].inc()
            _log.warning("bind failed", error=str(error))
            return encode(BindResult(error=_text(str(error))))
        except BindError as error:
            self._metrics.binds[error.outcome].inc()
            _log.warning("bind failed", pod=args.pod_name, uid=args.pod_uid, error=str(error))
            return encode(BindResult(error=_text(str(error))))
        return encode(BindResult())


def _unread(pod: Pod) -> PodRequest:
    """Return what stands for a pod whose demands do not read."""
    meta = pod.metadata
    return PodRequest(meta.uid, meta.namespace, meta.name, (), Demand(0))


def _passing(decision: Decision) -> str | None:
    """Return why a refusal would not last, None if it would.

    kube-scheduler asks about nodes that have enough GPUs by its own count. Where we see fewer, or
    do not know who has them, a pod has ended or come, and its node has not said so yet. When it
    does, kube-scheduler is woken and may ask before we have heard; a refusal then would stand for
    five minutes, or cost pods on other nodes their lives. An error is tried again by the clock,
    and evicts nobody.
    """
    counts = decision.counts()
    if FreeGpus.name in counts and not decision.request.demand.shares:
        return LEAVING
    return HeldBack.reason if HeldBack.name in counts else None


def _text(reason: str) -> str:
    """Return a reason as kube-scheduler's users see it: with whose it is."""
    return f"gputopo: {reason}"
