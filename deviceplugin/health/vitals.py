"""What a GPU says of itself when it is asked, and what is wrong by it. Pure.

Events can be missed: by a restart, by a driver that does not send them. What has happened to the
memory, the links and the temperature can be read at any time, so every probe reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from deviceplugin.health.record import Fault
from deviceplugin.health.xids import Recovery, Response
from deviceplugin.nvml.interface import Vitals


class Condition(StrEnum):
    """What can be wrong with a GPU that answers."""

    DOUBLE_BIT_ECC = "double-bit-ecc"
    REMAP_PENDING = "remap-pending"
    REMAP_FAILED = "remap-failed"
    THERMAL = "thermal"
    NVLINK_DOWN = "nvlink-down"


class ConditionRule(msgspec.Struct, frozen=True):
    """What a condition does, as data like an XID's."""

    title: str
    action: str
    response: Response
    recovery: Recovery = Recovery.RECHECK


CONDITIONS: Final = {
    Condition.DOUBLE_BIT_ECC: ConditionRule(
        "double-bit ECC error", "drain, reset GPU", Response.UNHEALTHY
    ),
    # The GPU goes on with the rows it has: a reset can wait until nobody uses it.
    Condition.REMAP_PENDING: ConditionRule(
        "row remap waits for a reset", "reset when convenient", Response.DEGRADE
    ),
    Condition.REMAP_FAILED: ConditionRule(
        "no spare row left", "reset, replace", Response.UNHEALTHY
    ),
    # It is slower, not wrong; who would rather keep new pods away overrides this.
    Condition.THERMAL: ConditionRule(
        "clocks are held down by heat", "check cooling", Response.DEGRADE
    ),
    # The topology is read anew, so that nobody counts on a link that is down.
    Condition.NVLINK_DOWN: ConditionRule("NVLink down", "NVLink procedure", Response.DEGRADE),
}


def judge(
    now: Vitals, before: Vitals | None, overrides: Mapping[Condition, Response]
) -> tuple[Fault, ...]:
    """Return what is wrong with a GPU by its vitals.

    `before` is what to compare with: the errors that were counted the last time, and the most
    links that were ever up. The first answer of a process has nothing to compare with, and errors
    from before its start are not counted against the GPU: a former process has seen to them.
    """
    found: list[Fault] = []
    counted = None if before is None else before.double_bit_errors
    if counted is not None and (now.double_bit_errors or 0) > counted:
        found.append(_fault(Condition.DOUBLE_BIT_ECC, overrides))
    if now.remap_failed:
        found.append(_fault(Condition.REMAP_FAILED, overrides))
    if now.remap_pending:
        found.append(_fault(Condition.REMAP_PENDING, overrides))
    if now.hot:
        found.append(_fault(Condition.THERMAL, overrides))
    if before is not None and now.links is not None and now.links < (before.links or 0):
        told = f", {now.links} of {before.links} are up"
        found.append(_fault(Condition.NVLINK_DOWN, overrides, told))
    return tuple(found)


def remember(now: Vitals, before: Vitals | None) -> Vitals:
    """Return what the next vitals are compared with."""
    if before is None:
        return now
    links = max((one.links for one in (now, before) if one.links is not None), default=None)
    return msgspec.structs.replace(now, links=links)


def fault_of_condition(condition: Condition, overrides: Mapping[Condition, Response]) -> Fault:
    """Return what it is when a condition is told of, by an event or by the vitals."""
    return _fault(condition, overrides)


def _fault(condition: Condition, overrides: Mapping[Condition, Response], told: str = "") -> Fault:
    rule = CONDITIONS[condition]
    return Fault(
        key=str(condition),
        reason=rule.title + told,
        response=overrides.get(condition, rule.response),
        recovery=rule.recovery,
        rediscover=condition is Condition.NVLINK_DOWN,
    )
