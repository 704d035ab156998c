"""What an XID means for a GPU, as data: two policies, the reference's and the vendor's catalogue.

`reference` is what NVIDIA's own plugin does with the number: it ignores six and takes every other
one for the GPU's end. It is the default, so that who comes from there meets no surprise.
`response` follows the catalogue's immediate action, told in short in `action` (NVIDIA's XID
documentation; see the numbers' rows there): an application's fault, or a note for the records,
costs nobody a GPU; a timeout that the catalogue answers with a reset (109) does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

UNKNOWN_XID: Final = 999
"""NVML's own number for an XID that it cannot name."""


class Response(StrEnum):
    """What an event does to the GPU."""

    IGNORE = "ignore"  # nothing: the workload's own affair, or mere information
    DEGRADE = "degrade"  # it stays in use; counted and logged, for a person to look at
    UNHEALTHY = "unhealthy"  # no new pod gets it until it has recovered


class Recovery(StrEnum):
    """What an unhealthy GPU must show before it is given out again."""

    RECHECK = "recheck"  # it answers every probe for the hold time
    REINIT = "reinit"  # the same, seen by an initialisation of NVML made after the fault


class XidRule(msgspec.Struct, frozen=True):
    """What one or more XIDs are and do, by the catalogue and by the reference.

    `rediscover` asks for the links to be read again.
    """

    numbers: tuple[int, ...]
    title: str
    action: str
    response: Response
    reference: Response
    recovery: Recovery = Recovery.RECHECK
    rediscover: bool = False


_IGNORE, _DEGRADE, _UNHEALTHY = Response.IGNORE, Response.DEGRADE, Response.UNHEALTHY

RULES: Final = (
    XidRule((8,), "GPU stopped processing", "restart app", _IGNORE, _UNHEALTHY),
    XidRule((13,), "graphics engine exception", "restart app", _IGNORE, _IGNORE),
    XidRule((31,), "MMU page fault", "restart app", _IGNORE, _IGNORE),
    XidRule((32,), "push buffer", "restart app", _IGNORE, _UNHEALTHY),
    XidRule((37, 38, 44, 66, 67), "firmware, information", "ignore", _IGNORE, _UNHEALTHY),
    XidRule(
        (39, 40, 41, 60, 69, 70, 71, 72, 75, 76, 77, 80, 85, *range(126, 136)),
        "engine or class error",
        "restart app",
        _IGNORE,
        _UNHEALTHY,
    ),
    XidRule((43,), "channel stopped", "ignore", _IGNORE, _IGNORE),
    XidRule((45,), "preemptive cleanup", "look for the first XID", _IGNORE, _IGNORE),
    XidRule((46,), "GPU stopped processing", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((48,), "double-bit ECC error", "drain, reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((54,), "auxiliary power", "check cables", _UNHEALTHY, _UNHEALTHY),
    XidRule((61, 62), "microcontroller halt", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((63,), "row remapped", "reset when convenient", _DEGRADE, _UNHEALTHY),
    XidRule((64,), "row remap failed", "reset, replace", _UNHEALTHY, _UNHEALTHY, Recovery.REINIT),
    XidRule((68,), "video decoder", "restart app", _IGNORE, _IGNORE),
    XidRule((74,), "NVLink error", "NVLink procedure", _UNHEALTHY, _UNHEALTHY, rediscover=True),
    XidRule((78,), "vGPU start", "update software", _DEGRADE, _UNHEALTHY),
    XidRule(
        (79,), "GPU fell off the bus", "drain, reboot", _UNHEALTHY, _UNHEALTHY, Recovery.REINIT
    ),
    XidRule((92,), "many single-bit ECC errors", "ignore or support", _DEGRADE, _UNHEALTHY),
    XidRule((93, 106, 107, 108, 121, 137, 141), "information", "ignore", _IGNORE, _UNHEALTHY),
    XidRule((94,), "contained ECC error", "restart app", _DEGRADE, _UNHEALTHY),
    XidRule((95,), "uncontained ECC error", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((109,), "context switch timeout", "reset GPU", _UNHEALTHY, _IGNORE),
    XidRule((110,), "security fault", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((119, 120), "GSP timeout or error", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((136,), "NVLink training", "reset GPU", _UNHEALTHY, _UNHEALTHY, rediscover=True),
    XidRule((140, 143), "unrecovered ECC or init", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule(
        tuple(range(144, 151)),
        "NVLink 5",
        "NVLink 5 procedure",
        _UNHEALTHY,
        _UNHEALTHY,
        rediscover=True,
    ),
    XidRule((151,), "key rotation", "restart VM", _DEGRADE, _UNHEALTHY),
    XidRule((154,), "recovery action changed", "follow it", _UNHEALTHY, _UNHEALTHY),
    XidRule((155,), "NVLink", "reset GPU", _UNHEALTHY, _UNHEALTHY, rediscover=True),
    XidRule((156, 158), "retirement or fatal timeout", "reset GPU", _UNHEALTHY, _UNHEALTHY),
    XidRule((157, *range(160, 166), 168), "information", "ignore or support", _DEGRADE, _UNHEALTHY),
    XidRule((159,), "UVM", "check UVM", _DEGRADE, _UNHEALTHY),
    XidRule(
        (167, 173),
        "PCIe or chip-to-chip fatal",
        "reset or reboot",
        _UNHEALTHY,
        _UNHEALTHY,
        Recovery.REINIT,
    ),
    XidRule((171, 172), "detail of XID 48", "as 48", _UNHEALTHY, _UNHEALTHY),
)

_BY_NUMBER: Final = {number: rule for rule in RULES for number in rule.numbers}


def rule_of(number: int) -> XidRule:
    """Return the rule of an XID.

    The catalogue grows with each driver: a number that it does not have is taken seriously.
    """
    rule = _BY_NUMBER.get(number)
    if rule is not None:
        return rule
    return XidRule((number,), "not in the catalogue", "unknown", _UNHEALTHY, _UNHEALTHY)
