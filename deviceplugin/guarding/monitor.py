"""Watches the GPUs through NVML: discovery, events, probes. The only thread that touches NVML.

NVML can fail as a whole (no driver yet, driver reloaded, library replaced) and for one GPU. The
first costs a new initialisation with back-off, during which nothing that was known is forgotten;
the second concerns that GPU only. Until a first discovery has succeeded nothing is advertised.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from deviceplugin.backoff import Appointment, Backoff
from deviceplugin.discovery.topology import Discovery
from deviceplugin.errors import DiscoveryError, DriverMismatchError, NvmlError
from deviceplugin.guarding.pulse import Pulse
from deviceplugin.guarding.recent import Recent
from deviceplugin.health.probe import Answer, ask_all
from deviceplugin.health.record import (
    LONGEST_HOLD,
    Fault,
    HealthRecord,
    devices_hit,
    fault_of_loss,
    fault_of_probe,
    fault_of_xid,
)
from deviceplugin.health.vitals import Condition, fault_of_condition, judge, remember
from deviceplugin.health.xids import Recovery, Response
from deviceplugin.metrics import Metrics
from deviceplugin.nvml.interface import (
    Code,
    DriverFacts,
    EventSet,
    EventType,
    MigDevice,
    Nvml,
    NvmlEvent,
    Vitals,
)
from deviceplugin.resources.inventory import Board, Inventory
from topology.model import NodeTopology

WATCHED: Final = EventType.XID | EventType.DOUBLE_BIT_ECC | EventType.MIG_CHANGE
WAIT_SECONDS: Final = 0.5
"""Longest wait for an event; also how long a stop may take."""

FIRST_PAUSE: Final = 0.2
LAST_PAUSE: Final = 10.0
FIRST_REINIT: Final = 10.0
LAST_REINIT: Final = 600.0
"""Seconds between initialisations made for a GPU that needs one to recover, doubling."""

PATIENCE: Final = 3
"""Failed initialisations in a row after which GPUs that nobody can watch are not given out."""

_log = structlog.get_logger("deviceplugin.monitor")


class Monitor:
    """Keeps the board's inventory true until `stopping` is set.

    `open_nvml` initialises NVML and raises NvmlError; `discover` reads the topology and raises
    DiscoveryError. `warm` is called with each new topology before it is posted. `pulse` is beaten
    before each step, and `recent` gets what GPUs report. `plugged` returns the PCI addresses of
    all GPUs in the machine: NVML numbers one that was plugged only when it is initialised anew.
    """

    def __init__(
        self,
        *,
        open_nvml: Callable[[], Nvml],
        close_nvml: Callable[[Nvml], None] = lambda nvml: nvml.close(),
        discover: Callable[[Nvml], Discovery],
        board: Board,
        metrics: Metrics,
        stopping: threading.Event,
        hold_seconds: float = 60.0,
        longest_hold_seconds: float = LONGEST_HOLD,
        probe_seconds: float = 10.0,
        reinit_seconds: float = FIRST_REINIT,
        xid_responses: Mapping[int, Response] | None = None,
        condition_responses: Mapping[Condition, Response] | None = None,
        pulse: Pulse | None = None,
        recent: Recent | None = None,
        warm: Callable[[NodeTopology], None] = lambda _: None,
        plugged: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_nvml = open_nvml
        self._close_nvml = close_nvml
        self._discover = discover
        self._board = board
        self._metrics = metrics
        self._stopping = stopping
        self._probe_seconds = probe_seconds
        self._xid_responses = dict(xid_responses or {})
        self._condition_responses = dict(condition_responses or {})
        self._pulse = pulse or Pulse()
        self._recent = recent or Recent()
        self._vitals: dict[str, Vitals] = {}
        self._links_up: dict[str, int | None] = {}
        self._warm = warm
        self._read_plugged = plugged
        self._plugged: frozenset[str] = frozenset()
        self._clock = clock
        self._record = HealthRecord(hold_seconds, longest_hold_seconds)
        self._init = 0
        self._failed_inits = 0
        self._pause = Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._reinit = Appointment(Backoff(reinit_seconds, max(LAST_REINIT, reinit_seconds)))
        self._adopted: dict[str, str] = {}
        self._driver = DriverFacts()
        self._mig: dict[str, tuple[MigDevice, ...]] = {}
        self.problem = "NVML has not been read yet"

    def follow(self, xid_responses: Mapping[int, Response], hold_seconds: float) -> None:
        """Take other rules for what happens from now on; from any thread."""
        self._xid_responses = dict(xid_responses)
        self._record.base_hold = hold_seconds

    def adopt(self, unhealthy: Mapping[str, str]) -> None:
        """Take over what an earlier process found unhealthy; before `run`.

        A restart of ours heals no GPU: each must pass the hold time first.
        """
        self._adopted = dict(unhealthy)

    def run(self) -> None:
        """Watch until `stopping` is set.

        One fault of NVML ends it, DriverMismatchError: the library that is loaded belongs to
        another driver, and only another process can load the right one.
        """
        while not self._stopping.is_set():
            self._pulse.beat("initialising")
            try:
                nvml = self._open_nvml()
            except NvmlError as error:
                if error.code == Code.LIB_RM_VERSION_MISMATCH:
                    self._note_all(fault_of_probe(str(error)))
                    raise DriverMismatchError(str(error)) from error
                self._cannot_open(error)
                self._rest(self._pause.next())
                continue
            self._init += 1
            # Another load of the driver counts errors anew; the links are the board's.
            self._vitals = {uuid: Vitals(links=one.links) for uuid, one in self._vitals.items()}
            try:
                self._watch(nvml)
            except (NvmlError, DiscoveryError) as error:
                stage = "discovery" if isinstance(error, DiscoveryError) else "wait"
                self._metrics.nvml_errors.labels(stage).inc()
                self.problem = str(error)
                _log.error("NVML failed, it is initialised again", problem=str(error))
                self._rest(self._pause.next())
            finally:
                with contextlib.suppress(NvmlError):
                    self._close_nvml(nvml)

    def _rest(self, seconds: float) -> None:
        """Wait, or until the stop; resting is no silence of NVML."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0 and not self._stopping.is_set():
            self._pulse.beat("resting")
            self._stopping.wait(min(left, WAIT_SECONDS))

    def _cannot_open(self, error: NvmlError) -> None:
        self._metrics.nvml_errors.labels("init").inc()
        self._failed_inits += 1
        self.problem = str(error)
        _log.error("NVML cannot be initialised", problem=str(error), attempt=self._failed_inits)
        if self._failed_inits >= PATIENCE:
            self._note_all(fault_of_probe(str(error)))

    def _watch(self, nvml: Nvml) -> None:
        """Work with one initialisation until it fails or a younger one is needed."""
        self._plugged = self._read_plugged()
        # First of all: what happens during the discovery must not be lost.
        self._pulse.beat("registering for events")
        events = self._register(nvml)
        rest = 0.0
        try:
            self._rediscover(nvml)
            if not self._board.read().topology.gpus:
                raise DiscoveryError("NVML shows no GPU")
            self._failed_inits = 0
            self.problem = ""
            next_probe = self._clock()
            self._reinit.cancel()
            while not self._stopping.is_set():
                now = self._clock()
                if now >= next_probe:
                    next_probe = now + self._probe_seconds
                    if self._probe(nvml):
                        # A set with a lost GPU tells of no other GPU either.
                        events = self._renew(nvml, events)
                    self._post(self._board.read().topology)
                    if self._is_plugged():
                        return
                # Events gather in the set while we rest.
                self._rest(rest)
                self._pulse.beat("waiting for events")
                if self._reinit.due(now, wanted=self._record.needs_reinit(self._init)):
                    _log.info("NVML is initialised again to look for GPUs that were lost")
                    return
                try:
                    event = events.wait(WAIT_SECONDS)
                except NvmlError as error:
                    if error.code != Code.GPU_IS_LOST:
                        raise
                    self._metrics.nvml_errors.labels("wait").inc()
                    events = self._renew(nvml, events)
                    next_probe = now
                    rest = self._pause.next()
                    continue
                self._pause.reset()
                rest = 0.0
                if event is not None:
                    next_probe = min(next_probe, self._answer(nvml, event, now))
        finally:
            _close(events)

    def _renew(self, nvml: Nvml, events: EventSet) -> EventSet:
        """Exchange the set; what happens before there is a new one is never told."""
        fresh = self._register(nvml)
        _close(events)
        return fresh

    def _answer(self, nvml: Nvml, event: NvmlEvent, now: float) -> float:
        """Act on an event; return when the GPUs should be asked next."""
        if self._take(event):
            self._rediscover(nvml)
        # One that cannot say who it is any more is found out by the probe.
        return now + WAIT_SECONDS if event.uuid else now

    def _register(self, nvml: Nvml) -> EventSet:
        """Watch every GPU that lets itself be watched; an old one without events stays healthy."""
        count = nvml.count()
        events = nvml.event_set()
        for index in range(count):
            try:
                events.register(nvml.device(index), WATCHED)
            except NvmlError as error:
                # A lost GPU is the probe's affair.
                _log.warning("GPU without events", index=index, problem=str(error))
        return events

    def _take(self, event: NvmlEvent) -> bool:
        """Judge an event; return whether links and MIG devices should be read again."""
        if event.type == EventType.MIG_CHANGE:
            _log.info("GPU is cut otherwise", uuid=event.uuid)
            return True
        if event.type == EventType.XID:
            kind, fault = "xid", fault_of_xid(event.data, self._xid_responses)
            self._metrics.xids.labels(event.uuid, str(event.data)).inc()
        elif event.type == EventType.DOUBLE_BIT_ECC:
            kind = "ecc"
            fault = fault_of_condition(Condition.DOUBLE_BIT_ECC, self._condition_responses)
        else:
            return False
        hit = devices_hit(event, self._board.read().mig.get(event.uuid, ()))
        self._metrics.health_events.labels(kind, str(fault.response)).inc()
        _log.warning(
            "GPU event", uuid=event.uuid, devices=hit, what=fault.reason, response=fault.response
        )
        self._recent.add(
            event.uuid,
            kind,
            fault.reason,
            str(fault.response),
            xid=event.data if kind == "xid" else 0,
            devices=hit,
        )
        for uuid in hit:
            self._note(uuid, fault, post=False)
        self._post(self._board.read().topology)
        return fault.rediscover

    def _probe(self, nvml: Nvml) -> bool:
        """Ask every GPU how it fares; return whether one was lost since the last time.

        A GPU that is new, one that was cut otherwise, and a link that went down or came up lead to
        a discovery.
        """
        seen = ask_all(nvml, self._pulse.beat)
        self._metrics.nvml_errors.labels("probe").inc(seen.failed)
        before = self._record.unhealthy()
        failed = stale = False
        for gpu in self._board.read().topology.gpus:
            answer = seen.answers.get(gpu.uuid)
            if answer is None:
                gone = fault_of_loss("NVML does not show it any more")
                failed = failed or gpu.uuid not in before
                self._note(gpu.uuid, seen.sick.get(gpu.uuid, gone), post=False)
                continue
            stale = self._judge(gpu.uuid, answer) or stale
        if seen.answers.keys() - self._board.read().topology.position_of().keys():
            _log.info("NVML shows a GPU that is new")
            self._rediscover(nvml)
        elif stale or self._is_cut_otherwise(seen.answers):
            _log.info("links or MIG devices have changed")
            self._rediscover(nvml)
        return failed

    def _judge(self, uuid: str, answer: Answer) -> bool:
        """Take a GPU's answer; return whether its links are not what they were."""
        last = self._vitals.get(uuid)
        faults = judge(answer.vitals, last, self._condition_responses)
        now = self._clock()
        for fault in faults:
            self._note(uuid, fault, post=False)
        self._vitals[uuid] = remember(answer.vitals, last)
        if not any(fault.response is Response.UNHEALTHY for fault in faults):
            for device in (uuid, *(answer.cut or ())):
                if self._record.passed(device, now, self._init):
                    _log.info("GPU has recovered", uuid=device)
        changed = self._links_up.get(uuid) != answer.vitals.links
        self._links_up[uuid] = answer.vitals.links
        return changed and last is not None

    def _is_plugged(self) -> bool:
        """Return whether there is a GPU that was not there when NVML was initialised."""
        fresh = self._read_plugged() - self._plugged
        if fresh:
            _log.info("NVML is initialised again for GPUs that were plugged", pci=sorted(fresh))
        return bool(fresh)

    def _is_cut_otherwise(self, answers: Mapping[str, Answer]) -> bool:
        known = self._board.read().mig
        return any(
            answer.cut != (tuple(one.uuid for one in known[uuid]) if uuid in known else None)
            for uuid, answer in answers.items()
        )

    def _rediscover(self, nvml: Nvml) -> None:
        """Read the topology again; GPUs that are not to be seen any more stay, as lost ones."""
        self._pulse.beat("reading the topology")
        found = self._discover(nvml)
        for problem in found.problems:
            _log.warning(
                "GPU cannot be read", index=problem.index, uuid=problem.uuid, problem=problem.reason
            )
        known = self._board.read().topology
        self._mig = {**self._mig, **found.mig}
        self._driver = found.driver
        for uuid in found.topology.position_of().keys() - found.mig.keys():
            self._mig.pop(uuid, None)
        missing = known.position_of().keys() - found.topology.position_of().keys()
        if missing and found.topology.position_of().keys() <= known.position_of().keys():
            # What is known about a lost GPU's links still tells where it will be again.
            self._post(known)
            return
        if found.topology != known:
            self._warm(found.topology)
        present = found.topology.position_of().keys() | {
            one.uuid for devices in self._mig.values() for one in devices
        }
        for uuid in self._adopted.keys() & present:
            reason = self._adopted.pop(uuid)
            fault = Fault("adopted", reason, Response.UNHEALTHY, Recovery.RECHECK)
            self._note(uuid, fault, post=False)
        self._record.forget_all_but(present)
        self._post(found.topology)

    def _note(self, uuid: str, fault: Fault, *, post: bool = True) -> None:
        before = self._record.unhealthy()
        if self._record.note(uuid, fault, self._clock(), self._init) and uuid not in before:
            _log.error("GPU is unhealthy", uuid=uuid, reason=fault.reason)
        if post:
            self._post(self._board.read().topology)

    def _note_all(self, fault: Fault) -> None:
        for gpu in self._board.read().topology.gpus:
            self._note(gpu.uuid, fault, post=False)
        self._post(self._board.read().topology)

    def _post(self, topology: NodeTopology) -> None:
        known = topology.position_of()
        mig = {uuid: devices for uuid, devices in self._mig.items() if uuid in known}
        present = known.keys() | {one.uuid for devices in mig.values() for one in devices}
        self._board.post(
            Inventory(
                topology,
                {uuid: why for uuid, why in self._record.unhealthy().items() if uuid in present},
                mig,
                {uuid: why for uuid, why in self._record.degraded().items() if uuid in present},
                self._driver,
            )
        )


def _close(events: EventSet) -> None:
    with contextlib.suppress(NvmlError):
        events.close()
