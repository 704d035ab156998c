"""What the configuration says of health, in the words of the health code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from deviceplugin.config.model import Health, XidPolicy
from deviceplugin.health.xids import RULES, Response

ALL: Final = "all"
XIDS: Final = "xids"

REFERENCE_IGNORED: Final = frozenset([13, 31, 43, 45, 68, 109])
"""What NVIDIA's plugin passes over by default."""


class XidNumbers(msgspec.Struct, frozen=True):
    """A list of XIDs, or all of them. `malformed` are words that are neither."""

    numbers: frozenset[int] = frozenset()
    every: bool = False
    malformed: tuple[str, ...] = ()

    def __contains__(self, number: int) -> bool:
        """Return whether an XID is meant."""
        return self.every or number in self.numbers


def read_numbers(words: Iterable[str]) -> XidNumbers:
    """Read what DP_DISABLE_HEALTHCHECKS says; malformed words are passed over, not refused."""
    numbers: set[int] = set()
    malformed: list[str] = []
    every = False
    for word in (word.strip() for word in words):
        if word.lower() in {ALL, XIDS}:
            every = True
        elif word.isascii() and word.isdecimal():
            numbers.add(int(word))
        elif word:
            malformed.append(word)
    return XidNumbers(frozenset(numbers), every, tuple(malformed))


def xid_responses(health: Health, numbers: Iterable[int] = range(1, 1000)) -> dict[int, Response]:
    """Return the responses that differ from the plugin's own table, by XID.

    The nearer word counts: `health.xids`, then `enable`, then `disable`, then the policy. With
    everything disabled the enabled ones still count, which the reference promises and does not do.
    """
    disabled, enabled = read_numbers(health.disable), read_numbers(health.enable)
    table: dict[int, Response] = {}
    for number in numbers:
        response = _by_policy(number, health.policy)
        if number in disabled:
            response = Response.IGNORE
        if number in enabled and response in {None, Response.IGNORE}:
            response = Response.UNHEALTHY
        if response is not None:
            table[number] = response
    table.update(health.xids)
    return table


def malformed_words(health: Health) -> tuple[str, ...]:
    """Return the words of both lists that are passed over."""
    return read_numbers(health.disable).malformed + read_numbers(health.enable).malformed


def _by_policy(number: int, policy: XidPolicy | None) -> Response | None:
    if policy is XidPolicy.REFERENCE:
        return Response.IGNORE if number in REFERENCE_IGNORED else Response.UNHEALTHY
    if policy is XidPolicy.CATALOGUE:
        return _CATALOGUE.get(number)
    return None


_CATALOGUE: Final[Mapping[int, Response]] = {
    number: rule.response for rule in RULES for number in rule.numbers
}
