"""From events and probes to the devices that must not be given out, and back. Pure.

A device is a GPU, or a MIG device, named by its uuid. It is unhealthy while it has at least one
open cause. A cause closes by rule, never by a restart of anything of ours: the device must have
passed every probe for the hold time since the cause was last seen, and, where the rule says so, the
probes must come from an initialisation of NVML that is younger than the cause. One that fails again
and again is held twice as long each time. What only degrades a device is kept in the same way, and
costs nobody anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from deviceplugin.health.xids import Recovery, Response, rule_of
from deviceplugin.nvml.interface import MigDevice, NvmlEvent

LONGEST_HOLD: Final = 3600.0
"""Seconds, unless told: the doubling ends here, and starts anew after as long without fault."""


class Cause(msgspec.Struct, frozen=True):
    """Why a GPU is unhealthy. `since` is when it was last seen, `init` in which NVML init."""

    reason: str
    recovery: Recovery
    since: float
    init: int


class Fault(msgspec.Struct, frozen=True):
    """Something that happened: `key` names the cause it opens, the same fault twice is one."""

    key: str
    reason: str
    response: Response
    recovery: Recovery = Recovery.RECHECK
    rediscover: bool = False


def fault_of_xid(number: int, overrides: Mapping[int, Response]) -> Fault:
    """Return what an XID is: by the reference's table, unless the operator says otherwise."""
    rule = rule_of(number)
    return Fault(
        key=f"xid:{number}",
        reason=f"XID {number}: {rule.title}",
        response=overrides.get(number, rule.reference),
        recovery=rule.recovery,
        rediscover=rule.rediscover,
    )


def fault_of_loss(problem: str) -> Fault:
    """Return what it is when a GPU cannot be reached any more."""
    return Fault("lost", f"lost: {problem}", Response.UNHEALTHY, Recovery.REINIT)


def fault_of_probe(problem: str) -> Fault:
    """Return what it is when a GPU answers a probe with an error, though it is there."""
    return Fault("probe", f"does not answer: {problem}", Response.UNHEALTHY)


def devices_hit(event: NvmlEvent, instances: Iterable[MigDevice]) -> tuple[str, ...]:
    """Return the uuids that an event concerns: MIG devices in the instance it names, or the GPU.

    A GPU stands for all its MIG devices and replicas. () if the GPU could not say who it is.
    """
    if not event.uuid:
        return ()
    if event.gpu_instance is None:
        return (event.uuid,)
    hit = tuple(
        one.uuid
        for one in instances
        if one.gpu_instance == event.gpu_instance
        and event.compute_instance in (None, one.compute_instance)
    )
    # An instance that is not known (any more) must not swallow the fault.
    return hit or (event.uuid,)


class HealthRecord:
    """The open causes of all devices. Times are seconds of one clock, given by the caller."""

    def __init__(self, hold: float, longest: float = LONGEST_HOLD) -> None:
        self.base_hold = hold
        self._longest = longest
        self._notes: dict[str, dict[str, Cause]] = {}
        self._causes: dict[str, dict[str, Cause]] = {}
        self._passing_since: dict[str, float] = {}
        self._times_failed: dict[str, int] = {}
        self._well_since: dict[str, float] = {}

    def note(self, uuid: str, fault: Fault, now: float, init: int) -> bool:
        """Take a fault; return whether it makes the device unhealthy."""
        if fault.response is Response.DEGRADE:
            notes = self._notes.setdefault(uuid, {})
            notes[fault.key] = Cause(fault.reason, fault.recovery, now, init)
        if fault.response is not Response.UNHEALTHY:
            return False
        causes = self._causes.setdefault(uuid, {})
        if not causes:
            if now - self._well_since.get(uuid, now) > self._longest:
                del self._times_failed[uuid]
            self._times_failed[uuid] = self._times_failed.get(uuid, 0) + 1
        causes[fault.key] = Cause(fault.reason, fault.recovery, now, init)
        self._passing_since.pop(uuid, None)
        return True

    def passed(self, uuid: str, now: float, init: int) -> bool:
        """Take a passed probe of NVML's initialisation number `init`; True if it recovers."""
        self._forget_notes(uuid, now)
        causes = self._causes.get(uuid)
        if not causes:
            return False
        since = self._passing_since.setdefault(uuid, now)
        if now - since < self.hold(uuid):
            return False
        left = {
            key: cause
            for key, cause in causes.items()
            if cause.recovery is Recovery.REINIT and cause.init >= init
        }
        if left:
            self._causes[uuid] = left
            return False
        del self._causes[uuid], self._passing_since[uuid]
        self._well_since[uuid] = now
        return True

    def _forget_notes(self, uuid: str, now: float) -> None:
        notes = self._notes.get(uuid, {})
        left = {key: note for key, note in notes.items() if now - note.since < self.base_hold}
        if left:
            self._notes[uuid] = left
        else:
            self._notes.pop(uuid, None)

    def needs_reinit(self, init: int) -> bool:
        """Return whether a GPU waits for an initialisation of NVML younger than number `init`."""
        return any(
            cause.recovery is Recovery.REINIT and cause.init >= init
            for causes in self._causes.values()
            for cause in causes.values()
        )

    def forget_all_but(self, uuids: AbstractSet[str]) -> None:
        """Drop what is known of other GPUs: they were replaced and will never pass a probe."""
        for record in (
            self._causes,
            self._passing_since,
            self._times_failed,
            self._well_since,
            self._notes,
        ):
            for uuid in record.keys() - uuids:
                del record[uuid]

    def hold(self, uuid: str) -> float:
        """Return how many seconds of passed probes this GPU must show."""
        again = max(0, self._times_failed.get(uuid, 0) - 1)
        return min(self._longest, self.base_hold * 2.0 ** min(again, 20))

    def unhealthy(self) -> dict[str, str]:
        """Map each unhealthy device to its reason; of several causes the one seen first."""
        return _first_reasons(self._causes)

    def degraded(self) -> dict[str, str]:
        """Map each device that works with a flaw to what it is."""
        return {
            uuid: reason
            for uuid, reason in _first_reasons(self._notes).items()
            if not self._causes.get(uuid)
        }


def _first_reasons(record: Mapping[str, Mapping[str, Cause]]) -> dict[str, str]:
    return {
        uuid: min(causes.values(), key=lambda cause: cause.since).reason
        for uuid, causes in record.items()
        if causes
    }
