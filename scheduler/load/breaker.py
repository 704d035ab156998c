"""A circuit breaker: a source that fails is left alone for a while, then tried with care.

    closed --failures in a row--> open --pause is over--> half-open --success--> closed
                                   ^------------failure-----------------'

Each pause is twice the last, up to a limit, and shortened by chance (up to a half), so that
replicas do not come back together. Time and chance are arguments.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

State = Literal["closed", "half_open", "open"]

STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")


class Rules(msgspec.Struct, frozen=True):
    """After how many failures in a row it opens, and for how long, in seconds."""

    failures: int = 3
    first_pause: float = 10.0
    last_pause: float = 120.0


class Breaker(msgspec.Struct, frozen=True):
    """Where a circuit stands.

    `failures` are in a row, `pauses` is how often it opened since it was closed, `until` is when
    an open one may be tried.
    """

    state: State = "closed"
    failures: int = 0
    pauses: int = 0
    until: float = 0.0


def admit(breaker: Breaker, now: float) -> Breaker:
    """Return the circuit as it stands now: one whose pause is over is half-open.

    Ask the source unless it is open.
    """
    if breaker.state == "open" and now >= breaker.until:
        return msgspec.structs.replace(breaker, state="half_open")
    return breaker


def succeed(_: Breaker) -> Breaker:
    """Note that the source did its work."""
    return Breaker()


def fail(breaker: Breaker, rules: Rules, now: float, chance: float) -> Breaker:
    """Note that it did not. `chance` is from 0 to 1: the whole pause, or half of it."""
    failures = breaker.failures + 1
    if breaker.state == "closed" and failures < rules.failures:
        return msgspec.structs.replace(breaker, failures=failures)
    # The exponent has a limit: 2.0 ** 1024 is an error, and nobody waits for that long.
    pause = min(rules.last_pause, rules.first_pause * 2.0 ** min(breaker.pauses, 32))
    return Breaker("open", failures, breaker.pauses + 1, now + pause * (1 - chance / 2))
