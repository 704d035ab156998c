"""The edge between the verbs and the store: notes what they do, and does the work after them.

A verb only hands its decision over. What is kept of it is made when the event loop turns next,
once the answer is on its way: 5,000 nodes cost some hundred microseconds then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from runtime.objects import Pod
from scheduler.engine.decision import Decision
from scheduler.engine.planner import Grant, Planner
from scheduler.engine.request import PodRequest
from scheduler.engine.workload import Forecast
from scheduler.explain.digest import describe_workload, digest
from scheduler.explain.record import Binding, Outcome, Record, Verdict, Workload
from scheduler.explain.store import Store
from scheduler.load.report import LoadReport
from topology.errors import WireError
from topology.wire import ASSIGNMENT_KEY, Assignment, decode_assignment

PENDING: Final = 64
"""Decisions that may wait to be worked up: each has megabytes at 5,000 nodes."""

_log = structlog.get_logger("scheduler.explain")

Later = Callable[[Callable[[], None]], object]
"""Calls something soon, from the same thread: an event loop's `call_soon`."""


Listener = Callable[[Record, Record | None], None]
"""Told of a pod's new record, and of the one before."""


def when_asked(work: Callable[[], None]) -> None:
    """Leave it until somebody asks, or too much is waiting."""


class Ticket:
    """Stands for a decision that was handed over; its verdict comes with the next settling."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None


class _Note(msgspec.Struct, frozen=True):
    """A decision that was handed over."""

    decision: Decision
    at: float
    seconds: float
    ticket: Ticket


class Recorder:
    """Takes what the verbs found out. `clock` gives Unix seconds.

    `report` says what a node's load is made of, None if nobody asks for load.
    """

    def __init__(
        self,
        store: Store,
        planner: Planner,
        *,
        clock: Callable[[], float] = time.time,
        later: Later = when_asked,
        report: Callable[[str], LoadReport | None] | None = None,
        listeners: tuple[Listener, ...] = (),
        trace_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.store = store
        self.clock = clock
        self._planner = planner
        self._later = later
        self._report = report
        self._listeners = listeners
        self._trace_of = trace_of
        self._notes: deque[_Note] = deque()
        self._deferred: dict[str, str] = {}
        self._forecast: Forecast | None = None
        self._workload: Workload | None = None

    def decided(self, decision: Decision, seconds: float) -> Ticket:
        """Take a decision that took so long."""
        ticket = Ticket()
        first = not self._notes
        self._notes.append(_Note(decision, self.clock(), seconds, ticket))
        if len(self._notes) > PENDING:
            self.settle()
        elif first:
            self._later(self.settle)
        return ticket

    def deferred(self, request: PodRequest, text: str) -> None:
        """Take that the pod of the last decision will be tried again by the clock, and why."""
        self._deferred[request.uid] = text

    def repeated(self, request: PodRequest, ticket: Ticket) -> None:
        """Take that a pod was refused by a decision made before, without a new look."""
        self.settle()
        verdict = ticket.verdict
        if verdict is not None:
            self._note(request, "refused", self.clock(), verdict=verdict, text=_why(verdict))

    def refused(self, request: PodRequest, text: str) -> None:
        """Take that no node can ever take the pod, whatever the cluster is like."""
        self.settle()
        self._note(request, "refused", self.clock(), text=text)

    def bound(self, grant: Grant, how: str, seconds: float) -> None:
        """Take that a pod was bound with this grant; bind took so long."""
        self.settle()
        before = self.store.get(grant.uid)
        record = self.store.bound(
            grant.uid,
            Binding(
                at=self.clock(),
                node=grant.node,
                how=how,
                containers=grant.containers,
                bus_bandwidth_gbs=grant.bus_bandwidth_gbs,
                seconds=seconds,
            ),
        )
        if record is not None:
            self._tell(record, before)

    def seen(self, pod: Pod) -> None:
        """Take a pod as the watch shows it: a Binding whose answer was lost is told by it alone."""
        self.settle()
        uid = pod.metadata.uid
        record = self.store.get(uid)
        if record is None or record.outcome in {"bound", "gone"}:
            return
        if pod.finished:
            self.ended(pod)
        elif pod.spec.node_name:
            raw = pod.metadata.annotation(ASSIGNMENT_KEY)
            try:
                assignment = Assignment({}) if raw is None else decode_assignment(raw)
            except WireError:
                assignment = Assignment({})
            bandwidth = assignment.scores.get("bus_bandwidth_gbs", 0.0)
            grant = Grant(uid, pod.spec.node_name, assignment.containers, bandwidth)
            self.bound(grant, "seen", 0.0)

    def ended(self, pod: Pod) -> None:
        """Take a pod's end."""
        self.settle()
        before = self.store.get(pod.metadata.uid)
        record = self.store.gone(pod.metadata.uid, self.clock())
        if record is not None:
            self._tell(record, before)

    def _note(
        self,
        request: PodRequest,
        outcome: Outcome,
        now: float,
        *,
        verdict: Verdict | None = None,
        text: str = "",
    ) -> None:
        before = self.store.get(request.uid)
        trace = self._trace_of(request.uid)
        record = self.store.note(request, outcome, now, verdict=verdict, text=text, trace=trace)
        self._tell(record, before)

    def _tell(self, record: Record, before: Record | None) -> None:
        for listener in self._listeners:
            try:
                listener(record, before)
            except Exception:  # noqa: BLE001 -- as in `settle`
                _log.exception("a listener failed", uid=record.request.uid)

    def settle(self) -> None:
        """Work up what was handed over. What goes wrong here must not touch a verb."""
        while self._notes:
            note = self._notes.popleft()
            try:
                self._take(note)
            except Exception:  # noqa: BLE001 -- see above
                _log.exception("a decision was not recorded", uid=note.decision.request.uid)

    def _take(self, note: _Note) -> None:
        decision, store = note.decision, self.store
        request = decision.request
        loads: tuple[LoadReport, ...] = ()
        if self._report is not None:
            reports = (self._report(option.node) for option in decision.shortlist)
            loads = tuple(report for report in reports if report is not None)
        verdict = digest(
            decision,
            self._planner.cluster,
            self._planner.profile_of(request),
            store.names.table(len(self._planner.cluster.columns)),
            at=note.at,
            workload=self._describe(decision.forecast),
            loads=loads,
            seconds={"decide": note.seconds},
        )
        note.ticket.verdict = verdict
        deferred = self._deferred.pop(request.uid, None)
        outcome: Outcome = "planned"
        text = ""
        if not decision.shortlist:
            outcome, text = "refused", _why(verdict)
        if deferred is not None:
            outcome, text = "deferred", deferred
        self._note(request, outcome, note.at, verdict=verdict, text=text)

    def _describe(self, forecast: Forecast) -> Workload:
        """Describe a forecast once: it is the same value until new pods have changed it."""
        if self._workload is None or forecast is not self._forecast:
            mix = self._planner.cluster.sets.tables.mix
            self._forecast, self._workload = forecast, describe_workload(forecast, mix)
        return self._workload


def _why(verdict: Verdict) -> str:
    """Return why no node will do, in one line: each reason with its number of nodes."""
    if not verdict.refusals:
        return "no node was offered" if not verdict.considered else "no node is accepted"
    counted = sorted(verdict.refusals, key=lambda one: -one.count)
    return "; ".join(f"{one.count} of {verdict.considered}: {one.reason}" for one in counted)


class PodSink:
    """The pods' reflector speaks to this."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Take a complete list."""
        for pod in objects:
            self._recorder.seen(pod)

    def changed(self, obj: Pod) -> None:
        """Take a new or changed pod."""
        self._recorder.seen(obj)

    def deleted(self, obj: Pod) -> None:
        """Take a pod's end."""
        self._recorder.ended(obj)
