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

from deviceplugin.backoff import Backoff
from deviceplugin.discovery import Discovery
from deviceplugin.errors import DiscoveryError, NvmlError
from deviceplugin.health import (
    Fault,
    HealthRecord,
    fault_of_ecc,
    fault_of_loss,
    fault_of_probe,
    fault_of_xid,
)
from deviceplugin.inventory import Board, Inventory
from deviceplugin.metrics import Metrics
from deviceplugin.nvml_interface import Code, EventSet, EventType, MigDevice, Nvml, NvmlEvent
from deviceplugin.xids import Recovery, Response
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

_LOST: Final = (Code.GPU_IS_LOST, Code.GPU_NOT_FOUND, Code.NOT_FOUND, Code.RESET_REQUIRED)

Cut = tuple[str, ...] | None
"""The uuids of a GPU's MIG devices, None for a GPU that is not in MIG mode."""

_log = structlog.get_logger("deviceplugin.monitor")


class Monitor:
    """Keeps the board's inventory true until `stopping` is set.

    `open_nvml` initialises NVML and raises NvmlError; `discover` reads the topology and raises
    DiscoveryError. `warm` is called with each new topology before it is posted.
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
        probe_seconds: float = 10.0,
        reinit_seconds: float = FIRST_REINIT,
        xid_responses: Mapping[int, Response] | None = None,
        warm: Callable[[NodeTopology], None] = lambda _: None,
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
        self._warm = warm
        self._clock = clock
        self._record = HealthRecord(hold_seconds)
        self._init = 0
        self._failed_inits = 0
        self._pause = Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._reinit = Backoff(reinit_seconds, max(LAST_REINIT, reinit_seconds))
        self._reinit_at: float | None = None
        self._adopted: dict[str, str] = {}
        self._mig: dict[str, tuple[MigDevice, ...]] = {}
        self.problem = "NVML has not been read yet"

    def adopt(self, unhealthy: Mapping[str, str]) -> None:
        """Take over what an earlier process found unhealthy; before `run`.

        A restart of ours heals no GPU: each must pass the hold time first.
        """
        self._adopted = dict(unhealthy)

    def run(self) -> None:
        """Watch until `stopping` is set; no fault of NVML ends it."""
        while not self._stopping.is_set():
            try:
                nvml = self._open_nvml()
            except NvmlError as error:
                self._cannot_open(error)
                self._stopping.wait(self._pause.next())
                continue
            self._init += 1
            try:
                self._watch(nvml)
            except (NvmlError, DiscoveryError) as error:
                stage = "discovery" if isinstance(error, DiscoveryError) else "wait"
                self._metrics.nvml_errors.labels(stage).inc()
                self.problem = str(error)
                _log.error("NVML failed, it is initialised again", problem=str(error))
                self._stopping.wait(self._pause.next())
            finally:
                with contextlib.suppress(NvmlError):
                    self._close_nvml(nvml)

    def _cannot_open(self, error: NvmlError) -> None:
        self._metrics.nvml_errors.labels("init").inc()
        self._failed_inits += 1
        self.problem = str(error)
        _log.error("NVML cannot be initialised", problem=str(error), attempt=self._failed_inits)
        if self._failed_inits >= PATIENCE:
            self._note_all(fault_of_probe(str(error)))

    def _watch(self, nvml: Nvml) -> None:
        """Work with one initialisation until it fails or a younger one is needed."""
        # First of all: what happens during the discovery must not be lost.
        events = self._register(nvml)
        rest = 0.0
        try:
            self._rediscover(nvml)
            if not self._board.read().topology.gpus:
                raise DiscoveryError("NVML shows no GPU")
            self._failed_inits = 0
            self.problem = ""
            next_probe = self._clock()
            self._reinit_at = None
            while not self._stopping.is_set():
                now = self._clock()
                if now >= next_probe:
                    next_probe = now + self._probe_seconds
                    if self._probe(nvml):
                        # A set with a lost GPU tells of no other GPU either.
                        events = self._renew(nvml, events)
                    self._post(self._board.read().topology)
                # Events gather in the set while we rest.
                self._stopping.wait(rest)
                if self._reinit_is_due(now):
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

    def _reinit_is_due(self, now: float) -> bool:
        """Return whether it is time to look for a lost GPU with a new initialisation."""
        if not self._record.needs_reinit(self._init):
            self._reinit_at = None
            self._reinit.reset()
        elif self._reinit_at is None:
            self._reinit_at = now + self._reinit.next()
        return self._reinit_at is not None and now >= self._reinit_at

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
            fault = fault_of_xid(event.data, self._xid_responses)
        elif event.type == EventType.DOUBLE_BIT_ECC:
            fault = fault_of_ecc()
        else:
            return False
        kind = "xid" if event.type == EventType.XID else "ecc"
        self._metrics.health_events.labels(kind, str(fault.response)).inc()
        _log.warning("GPU event", uuid=event.uuid, what=fault.reason, response=str(fault.response))
        if event.uuid:
            self._note(event.uuid, fault)
        return fault.rediscover

    def _probe(self, nvml: Nvml) -> bool:
        """Ask every GPU whether it answers; return whether one was lost since the last time.

        A GPU that is new, or that was cut otherwise, leads to a discovery.
        """
        seen, sick = self._ask_all(nvml)
        now = self._clock()
        before = self._record.unhealthy()
        failed = False
        for gpu in self._board.read().topology.gpus:
            fault = sick.get(gpu.uuid)
            if fault is None and gpu.uuid not in seen:
                fault = fault_of_loss("NVML does not show it any more")
            if fault is not None:
                failed = failed or gpu.uuid not in before
                self._note(gpu.uuid, fault, post=False)
            elif self._record.passed(gpu.uuid, now, self._init):
                _log.info("GPU has recovered", uuid=gpu.uuid)
        if seen.keys() - self._board.read().topology.position_of().keys():
            _log.info("NVML shows a GPU that is new")
            self._rediscover(nvml)
        elif self._is_cut_otherwise(seen):
            # Not every driver tells of it by an event.
            _log.info("MIG devices have changed")
            self._rediscover(nvml)
        return failed

    def _ask_all(self, nvml: Nvml) -> tuple[dict[str, Cut], dict[str, Fault]]:
        """Return how each GPU that answers is cut, and what is wrong with the others, by uuid."""
        seen: dict[str, Cut] = {}
        sick: dict[str, Fault] = {}
        for index in range(nvml.count()):
            uuid = ""
            try:
                device = nvml.device(index)
                uuid = nvml.uuid(device)
                nvml.memory_mib(device)
                seen[uuid] = (
                    tuple(one.uuid for one in nvml.mig_devices(device))
                    if nvml.mig_mode(device)
                    else None
                )
            except NvmlError as error:
                self._metrics.nvml_errors.labels("probe").inc()
                lost = error.code in _LOST
                if uuid:
                    sick[uuid] = fault_of_loss(str(error)) if lost else fault_of_probe(str(error))
                elif error.code == Code.UNINITIALIZED:
                    raise
        return seen, sick

    def _is_cut_otherwise(self, seen: Mapping[str, Cut]) -> bool:
        known = self._board.read().mig
        return any(
            cut != (tuple(one.uuid for one in known[uuid]) if uuid in known else None)
            for uuid, cut in seen.items()
        )

    def _rediscover(self, nvml: Nvml) -> None:
        """Read the topology again; GPUs that are not to be seen any more stay, as lost ones."""
        found = self._discover(nvml)
        for problem in found.problems:
            _log.warning(
                "GPU cannot be read", index=problem.index, uuid=problem.uuid, problem=problem.reason
            )
        known = self._board.read().topology
        self._mig = {**self._mig, **found.mig}
        for uuid in found.topology.position_of().keys() - found.mig.keys():
            self._mig.pop(uuid, None)
        missing = known.position_of().keys() - found.topology.position_of().keys()
        if missing and found.topology.position_of().keys() <= known.position_of().keys():
            # What is known about a lost GPU's links still tells where it will be again.
            self._post(known)
            return
        if found.topology != known:
            self._warm(found.topology)
        for uuid in self._adopted.keys() & found.topology.position_of().keys():
            reason = self._adopted.pop(uuid)
            fault = Fault("adopted", reason, Response.UNHEALTHY, Recovery.RECHECK)
            self._note(uuid, fault, post=False)
        self._record.forget_all_but(found.topology.position_of().keys())
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
        unhealthy = {
            uuid: reason for uuid, reason in self._record.unhealthy().items() if uuid in known
        }
        mig = {uuid: devices for uuid, devices in self._mig.items() if uuid in known}
        self._board.post(Inventory(topology, unhealthy, mig))


def _close(events: EventSet) -> None:
    with contextlib.suppress(NvmlError):
        events.close()
