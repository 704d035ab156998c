"""From events and probes to the GPUs that must not be given out, and back. Pure.

A GPU is unhealthy while it has at least one open cause. A cause closes by rule, never by a
restart of anything of ours: the GPU must have passed every probe for the hold time since the cause
was last seen, and, where the rule says so, the probes must come from an initialisation of NVML
that is younger than the cause. A GPU that fails again and again is held twice as long each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from deviceplugin.xids import Recovery, Response, XidRule, rule_of

LONGEST_HOLD: Final = 3600.0
"""Seconds; the doubling of the hold time ends here, and starts anew after as long without fault."""

DOUBLE_BIT_ECC: Final = XidRule(
    numbers=(),
    title="double-bit ECC error",
    action="drain, reset GPU",
    response=Response.UNHEALTHY,
    reference=Response.IGNORE,
)
"""The event that drivers send besides XID 48; the reference drops it."""


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
    """Return what an XID is, with the operator's own response where there is one."""
    rule = rule_of(number)
    return Fault(
        key=f"xid:{number}",
        reason=f"XID {number}: {rule.title}",
        response=overrides.get(number, rule.response),
        recovery=rule.recovery,
        rediscover=rule.rediscover,
    )


def fault_of_ecc() -> Fault:
    """Return what a double-bit ECC event is."""
    return Fault(
        "ecc:double", DOUBLE_BIT_ECC.title, DOUBLE_BIT_ECC.response, DOUBLE_BIT_ECC.recovery
    )


def fault_of_loss(problem: str) -> Fault:
    """Return what it is when a GPU cannot be reached any more."""
    return Fault("lost", f"lost: {problem}", Response.UNHEALTHY, Recovery.REINIT)


def fault_of_probe(problem: str) -> Fault:
    """Return what it is when a GPU answers a probe with an error, though it is there."""
    return Fault("probe", f"does not answer: {problem}", Response.UNHEALTHY)


class HealthRecord:
    """The open causes of all GPUs. Times are seconds of one clock, given by the caller."""

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._causes: dict[str, dict[str, Cause]] = {}
        self._passing_since: dict[str, float] = {}
        self._times_failed: dict[str, int] = {}
        self._well_since: dict[str, float] = {}

    def note(self, uuid: str, fault: Fault, now: float, init: int) -> bool:
        """Take a fault; return whether it makes the GPU unhealthy."""
        if fault.response is not Response.UNHEALTHY:
            return False
        causes = self._causes.setdefault(uuid, {})
        if not causes:
            if now - self._well_since.get(uuid, now) > LONGEST_HOLD:
                del self._times_failed[uuid]
            self._times_failed[uuid] = self._times_failed.get(uuid, 0) + 1
        causes[fault.key] = Cause(fault.reason, fault.recovery, now, init)
        self._passing_since.pop(uuid, None)
        return True

    def passed(self, uuid: str, now: float, init: int) -> bool:
        """Take a passed probe of NVML's initialisation number `init`; True if the GPU recovers."""
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
        ):
            for uuid in record.keys() - uuids:
                del record[uuid]

    def hold(self, uuid: str) -> float:
        """Return how many seconds of passed probes this GPU must show."""
        again = max(0, self._times_failed.get(uuid, 0) - 1)
        return min(LONGEST_HOLD, self._hold * 2.0 ** min(again, 20))

    def unhealthy(self) -> dict[str, str]:
        """Map each unhealthy GPU to its reason; of several causes the one seen first."""
        return {
            uuid: min(causes.values(), key=lambda cause: cause.since).reason
            for uuid, causes in self._causes.items()
            if causes
        }
