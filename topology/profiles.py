"""Profiles: what matters in a choice, and in which order. Data; `topology.policies` reads it."""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from topology.errors import SelectionError


class Criterion(Enum):
    """One thing to compare two sets by; the values say which is better."""

    BANDWIDTH = "more predicted bus bandwidth"
    PAIR_SCORE = "a greater pair score, as the reference allocator counts it"
    REST = "less loss of what is left, then tighter groups and more left to choose from"
    FEW_NUMA = "fewer NUMA nodes"
    MANY_NUMA = "more NUMA nodes"
    NEAR_NIC = "nearer NICs"
    FAR_APART = "a smaller pair score"


class Profile(msgspec.Struct, frozen=True):
    """A named way to choose.

    Sets below (1 - `tolerance`) times the best bandwidth that the demands allow are out: 0 takes
    only the best, 1 takes any. Among the others `order` decides, and at last the lowest
    positions. `order_without_switch` replaces it for two GPUs or more of a machine that has no
    NVSwitch. Each order holds `Criterion.REST` once.
    """

    name: str
    tolerance: float
    order: tuple[Criterion, ...]
    order_without_switch: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance <= 1.0:
            raise SelectionError(f"profile {self.name}: tolerance {self.tolerance} is not 0 to 1")
        for order in (self.order, self.order_without_switch):
            if order.count(Criterion.REST) != 1:
                raise SelectionError(f"profile {self.name}: REST stands once in each order")

    def order_for(self, size: int, *, switched: bool) -> tuple[Criterion, ...]:
        """Return the order for a request of this size on such a machine."""
        return self.order if switched or size < 2 else self.order_without_switch


_TRAINING = (
    Criterion.BANDWIDTH,
    Criterion.REST,
    Criterion.FEW_NUMA,
    Criterion.NEAR_NIC,
    Criterion.PAIR_SCORE,
)

TRAINING: Final = Profile(
    name="training",
    tolerance=0.0,
    order=_TRAINING,
    order_without_switch=(Criterion.BANDWIDTH, Criterion.PAIR_SCORE, *_TRAINING[1:]),
)
"""All-reduce rules: the fastest set, then what the next pods keep."""

_INFERENCE = (
    Criterion.REST,
    Criterion.FEW_NUMA,
    Criterion.BANDWIDTH,
    Criterion.NEAR_NIC,
    Criterion.PAIR_SCORE,
)

INFERENCE: Final = Profile(
    name="inference", tolerance=0.5, order=_INFERENCE, order_without_switch=_INFERENCE
)
"""Half of the best bandwidth does for small messages, if that keeps links for others."""

_PACK = (
    Criterion.REST,
    Criterion.BANDWIDTH,
    Criterion.FEW_NUMA,
    Criterion.NEAR_NIC,
    Criterion.PAIR_SCORE,
)

PACK: Final = Profile(name="pack", tolerance=1.0, order=_PACK, order_without_switch=_PACK)
"""The leftovers first: any set that hurts the rest least."""

_SPREAD = (
    Criterion.MANY_NUMA,
    Criterion.FAR_APART,
    Criterion.REST,
    Criterion.NEAR_NIC,
)

SPREAD: Final = Profile(name="spread", tolerance=1.0, order=_SPREAD, order_without_switch=_SPREAD)
"""GPUs that work alone: as much host memory and PCIe bandwidth for each as there is."""

PROFILES: Final = {profile.name: profile for profile in (TRAINING, INFERENCE, PACK, SPREAD)}


def profile_named(name: str) -> Profile:
    """Return a profile; raises SelectionError naming those that exist."""
    try:
        return PROFILES[name]
    except KeyError:
        raise SelectionError(f"profile: {name[:40]!r} is none of {', '.join(PROFILES)}") from None
