"""The bind verb: the set, reserved; the Binding, written; the outcome, known for certain.

Everything between looking at a node's free GPUs and reserving some happens without an await, so
on the one event loop two binds can never be given one GPU: that is the exclusion per node.

A Binding may be taken although its answer never comes. So an attempt outlives the verb's
deadline (kube-scheduler's httpTimeout must not be what ends it), calls for one UID share it, and
its reservation ends only when the API server said no, or a GET shows the pod unbound.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from runtime.depth import decode_shallow
from runtime.errors import ApiError, ConflictError, KubeError, NotFoundError
from runtime.objects import UNREADABLE, Pod
from runtime.tracing import Span
from scheduler.engine.planner import Grant, Planner
from scheduler.engine.request import PodRequest
from scheduler.engine.reservations import Claim, Stage
from scheduler.errors import BindError, DemandError, SchedulerError
from scheduler.explain.recorder import Recorder
from scheduler.explain.traces import Traces
from scheduler.kube.inventory import Inventory
from scheduler.kube.pods import read_request
from scheduler.metrics import Metrics
from topology.errors import TopologyError, WireError
from topology.wire import ASSIGNMENT_KEY, Assignment, decode_assignment, encode_assignment

ATTEMPT_SECONDS: Final = 30.0
"""How long one Binding may take before its connection is given up: far beyond the verb's own."""

GET_SECONDS: Final = 5.0
LOOKS: Final = 2
"""GETs in a row that must show a pod unbound: its Binding may still be in the server's queue."""

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between looks at a pod of unknown fate; the last repeats."""

UNSEEN_SECONDS: Final = 60.0
"""How long a bound pod may stay unseen by the watch before it is looked up."""

REQUESTS_KEPT: Final = 4096

_log = structlog.get_logger("scheduler.binder")

_decode_pod = msgspec.json.Decoder(Pod).decode


class PodsApi(Protocol):
    """The part of the API server's client that binding needs."""

    async def get(self, path: str, *, timeout: float = ...) -> bytes:  # noqa: ASYNC109 -- a socket's
        """Read an object."""

    async def post(self, path: str, body: object, *, timeout: float = ...) -> bytes:  # noqa: ASYNC109 -- as above
        """Create."""


class PodRef(msgspec.Struct, frozen=True):
    """Which pod: all three must fit."""

    namespace: str
    name: str
    uid: str

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"


class _Target(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    api_version: str = "v1"
    kind: str = "Node"


class _Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    namespace: str
    uid: str
    annotations: dict[str, str] = {}


class _Binding(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Meta
    target: _Target
    api_version: str = "v1"
    kind: str = "Binding"


class Binder:
    """Binds pods. `clock` is monotonic seconds; `timeout` is the verb's own deadline."""

    def __init__(
        self,
        planner: Planner,
        inventory: Inventory,
        api: PodsApi,
        *,
        resource: str,
        clock: Callable[[], float],
        timeout: float,
        metrics: Metrics,
        recorder: Recorder,
        traces: Traces | None = None,
        pauses: tuple[float, ...] = PAUSES,
        any_pod: bool = False,
    ) -> None:
        self._planner = planner
        self._inventory = inventory
        self._api = api
        self._resource = resource
        self._clock = clock
        self._timeout = timeout
        self._metrics = metrics
        self._recorder = recorder
        self._traces = traces or Traces()
        self._pauses = pauses
        self._any_pod = any_pod
        self._requests: OrderedDict[str, PodRequest] = OrderedDict()
        self._reserved: dict[str, tuple[PodRef, int]] = {}
        self._attempts: dict[str, tuple[str, asyncio.Task[str]]] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._begun = 0

    def remember(self, request: PodRequest) -> None:
        """Keep what a pod asks for: the bind verb tells only its name."""
        self._requests[request.uid] = request
        self._requests.move_to_end(request.uid)
        if len(self._requests) > REQUESTS_KEPT:
            self._requests.popitem(last=False)

    async def bind(self, pod: PodRef, node: str) -> None:
        """Bind a pod to a node with a set; returns when it is bound.

        Raises BindError if it is not, or if that is not known within the deadline; the same call
        again then joins the attempt or finds its outcome.
        """
        under_way = self._attempts.get(pod.uid)
        if under_way is None:
            attempt = asyncio.create_task(self._attempt(pod, node), name=f"bind {pod.uid}")
            self._attempts[pod.uid] = (node, attempt)
            attempt.add_done_callback(lambda _: self._attempts.pop(pod.uid, None))
            # Everybody may have left when it fails: then its exception is nobody's surprise.
            attempt.add_done_callback(_retrieve)
        else:
            first, attempt = under_way
            if first != node:
                raise BindError(f"a bind of this pod to node {first} is under way")
        try:
            outcome = await asyncio.wait_for(asyncio.shield(attempt), self._timeout)
        except TimeoutError:
            raise BindError(
                f"no answer from the API server within {self._timeout:g} s; a retry will find out",
                "timeout",
            ) from None
        self._metrics.binds[outcome].inc()

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for _, task in self._attempts.values()] + list(self._looks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def settle_unseen(self) -> None:
        """Look up the pods whose claims no watch and no attempt is about to settle."""
        now = self._clock()
        for pod, _ in tuple(self._reserved.values()):
            claim = self._planner.cluster.claims.get(pod.uid)
            if claim is None:
                del self._reserved[pod.uid]
            elif claim.stage is not Stage.HELD and now - claim.since > UNSEEN_SECONDS:
                self._look_later(pod)

    async def _attempt(self, pod: PodRef, node: str) -> str:
        bound = self._inventory.bound(pod.uid)
        if bound is not None:
            if bound.node == node:
                return "already_bound"
            raise BindError(f"the pod is bound to node {bound.node}")
        request = self._requests.get(pod.uid) or await self._fetch(pod, node)
        if request is None:
            return "already_bound"
        span = self._traces.begin("bind", pod.uid)
        about: dict[str, str | int | float | bool] = {
            "k8s.namespace.name": pod.namespace,
            "k8s.pod.name": pod.name,
            "k8s.pod.uid": pod.uid,
            "k8s.node.name": node,
        }
        try:
            outcome = await self._write(pod, request, node, span)
        except BaseException as error:
            span.end(about, problem=str(error) or type(error).__name__)
            raise
        span.end({**about, "gputopo.outcome": outcome})
        return outcome

    async def _write(self, pod: PodRef, request: PodRequest, node: str, span: Span) -> str:
        """Reserve a set and write the Binding with it."""
        begun = self._clock()
        grant, how = self._fix(request, node)
        self._begun += 1
        self._reserved[pod.uid] = (pod, self._begun)
        try:
            binding = self._binding(pod, grant, span.traceparent)
        except TopologyError as error:
            self._give_up(pod)
            raise BindError(str(error)) from None
        try:
            await self._api.post(f"{pod.path}/binding", binding, timeout=ATTEMPT_SECONDS)
        except ConflictError as error:
            outcome = await self._after_conflict(pod, grant, error)
            self._recorder.bound(grant, how, self._clock() - begun)
            return outcome
        except NotFoundError:
            self._give_up(pod)
            raise BindError("the pod is gone") from None
        except ApiError as error:
            if _is_definite(error):
                self._give_up(pod)
            else:
                self._look_later(pod)
            raise BindError(f"binding: {error}") from None
        except KubeError as error:
            self._look_later(pod)
            raise BindError(f"binding: {error}") from None
        self._confirm(grant)
        self._recorder.bound(grant, how, self._clock() - begun)
        return "bound"

    def _fix(self, request: PodRequest, node: str) -> tuple[Grant, str]:
        if not self._inventory.synced:
            raise BindError("the inventory is not complete yet")
        try:
            grant, how = self._planner.fix(request, node, now=self._clock())
        except BindError:
            raise
        except (SchedulerError, TopologyError) as error:
            raise BindError(str(error)) from None
        self._metrics.plans[how].inc()
        return grant, how

    def _binding(self, pod: PodRef, grant: Grant, trace: str) -> _Binding:
        annotations = {}
        if grant.containers:
            scores = {"bus_bandwidth_gbs": round(grant.bus_bandwidth_gbs, 3)}
            annotations[ASSIGNMENT_KEY] = encode_assignment(
                Assignment(grant.containers, scores, trace)
            )
        return _Binding(
            metadata=_Meta(pod.name, pod.namespace, pod.uid, annotations),
            target=_Target(grant.node),
        )

    def _confirm(self, grant: Grant) -> None:
        self._planner.cluster.confirm(grant.uid, now=self._clock())
        if grant.containers:
            self._metrics.bandwidth.observe(grant.bus_bandwidth_gbs)

    def _give_up(self, pod: PodRef) -> None:
        """End the claim, unless an earlier Binding of unknown fate has it too: see `_look`."""
        if pod.uid not in self._looks:
            self._planner.cluster.release(pod.uid)

    async def _after_conflict(self, pod: PodRef, grant: Grant, error: ConflictError) -> str:
        """Find out what a 409 means: it is success when the pod is bound with our set."""
        try:
            found = await self._get(pod)
        except KubeError:
            self._look_later(pod)
            raise BindError(f"binding: {error}") from None
        if found is not None and is_ours(found, grant):
            self._confirm(grant)
            return "already_bound"
        self._give_up(pod)
        if found is None:
            raise BindError("the pod is gone")
        if found.spec.node_name:
            raise BindError(f"the pod was bound to node {found.spec.node_name} by somebody else")
        raise BindError(f"binding: {error}")

    async def _fetch(self, pod: PodRef, node: str) -> PodRequest | None:
        """Read a pod that no filter call has shown; None if it is bound to the node already."""
        try:
            found = await self._get(pod)
        except KubeError as error:
            raise BindError(f"reading the pod: {error}") from None
        if found is None:
            raise BindError("the pod is gone")
        if found.spec.node_name:
            if found.spec.node_name == node:
                return None
            raise BindError(f"the pod is bound to node {found.spec.node_name}")
        try:
            request = read_request(found, self._resource, any_pod=self._any_pod)
        except DemandError as error:
            raise BindError(str(error)) from None
        if request is None:
            raise BindError(f"the pod does not request {self._resource}")
        self.remember(request)
        return request

    async def _get(self, pod: PodRef) -> Pod | None:
        """Read a pod from the API server's own store, None if this very pod is not there."""
        try:
            body = await self._api.get(pod.path, timeout=GET_SECONDS)
            found = decode_shallow(_decode_pod, body)
        except NotFoundError:
            return None
        except UNREADABLE as error:
            raise KubeError(f"{pod.path} does not read: {error}") from None
        return found if found.metadata.uid == pod.uid else None

    def _look_later(self, pod: PodRef) -> None:
        if pod.uid not in self._looks:
            look = asyncio.create_task(self._look(pod), name=f"look {pod.uid}")
            self._looks[pod.uid] = look
            look.add_done_callback(lambda _: self._looks.pop(pod.uid, None))

    async def _look(self, pod: PodRef) -> None:
        """Ask until the fate of a reservation is known, and end or confirm it."""
        cluster = self._planner.cluster
        unbound = tries = 0
        while cluster.claims.get(pod.uid) is not None:
            await asyncio.sleep(self._pauses[min(tries, len(self._pauses) - 1)])
            tries += 1
            before = self._reserved.get(pod.uid)
            if pod.uid in self._attempts:
                unbound = 0
                continue
            try:
                found = await self._get(pod)
            except KubeError as error:
                _log.warning("cannot look up a pod", pod=pod.name, uid=pod.uid, error=str(error))
                continue
            claim = cluster.claims.get(pod.uid)
            if claim is None:
                return
            if found is not None and not found.finished and not found.spec.node_name:
                doubtful = (
                    before != self._reserved.get(pod.uid) or claim.stage is not Stage.RESERVED
                )
                unbound = 0 if doubtful else unbound + 1
                if unbound >= LOOKS:
                    cluster.release(pod.uid)
            elif found is None or found.finished or not is_claimed(found, claim):
                cluster.release(pod.uid)
            elif claim.stage is Stage.RESERVED:
                # The claim stands until the watch shows the pod: a list that is being read now
                # may be older than this answer, and would free what it does not know of.
                cluster.confirm(pod.uid, now=self._clock())


def is_ours(pod: Pod, grant: Grant) -> bool:
    """Return whether a pod is bound to the grant's node with the grant's set."""
    return _is_bound_with(pod, grant.node, grant.uuids)


def is_claimed(pod: Pod, claim: Claim) -> bool:
    """Return whether a pod is bound to the claim's node with the claim's set."""
    return _is_bound_with(pod, claim.node, frozenset(claim.uuids))


def _is_bound_with(pod: Pod, node: str, uuids: frozenset[str]) -> bool:
    if pod.spec.node_name != node:
        return False
    raw = pod.metadata.annotation(ASSIGNMENT_KEY)
    if raw is None:
        return not uuids
    try:
        return decode_assignment(raw).uuids() == uuids
    except WireError:
        return False


def _is_definite(error: ApiError) -> bool:
    """Return whether the API server's answer says that nothing was written and nothing will be."""
    return 400 <= error.status < 500 and error.status not in {408, 429}


def _retrieve(attempt: asyncio.Task[str]) -> None:
    if not attempt.cancelled() and attempt.exception() is not None:
        _log.debug("attempt failed", task=attempt.get_name(), error=str(attempt.exception()))
