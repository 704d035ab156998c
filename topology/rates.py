"""What links carry in an all-reduce, as data: GB/s, one direction, as nccl-tests' busbw counts.

Sources: the rates that NCCL itself plans with for each compute capability (its per-link and PCIe
tables), corrected where a published nccl-tests run of a whole machine says better; each number
that was measured names its run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from topology.links import Level


class NvlinkRate(msgspec.Struct, frozen=True):
    """The rate of one NVLink: wired GPU to GPU (bridge, mesh), or through an NVSwitch."""

    direct: float
    switched: float


NVLINK_RATE: Final = {
    "6.0": NvlinkRate(18.0, 18.0),  # P100
    "7.0": NvlinkRate(20.0, 20.0),  # V100: pairs measured at 39 with two links, 22 with one
    # A100: 8 under a switch measured at 231-240; a bridged pair (12 links) at 208 (nccl-tests
    # issue 178), which is 17.3 a link.
    "8.0": NvlinkRate(208 / 12, 20.0),
    "8.6": NvlinkRate(12.0, 12.0),  # A40, A6000, RTX 3090: four slow links on a bridge
    "9.0": NvlinkRate(20.6, 20.6),  # H100, H200: 365-371 measured on rings (nccl issue 1455)
    "10": NvlinkRate(40.1, 40.1),  # B200, B300, GB200: 673-695 measured on rings
    "12": NvlinkRate(40.1, 40.1),
}
"""By compute capability, else by its major part."""

UNKNOWN_NVLINK_RATE: Final = NvlinkRate(18.0, 18.0)
"""The slowest data-centre link: never promise what an unknown GPU may not have."""

# In-switch reduction (NVLS) lets more GPUs than a few exceed the ring: measured busbw over the
# ring's. Hopper: 370, 420, 440, 460, 480 for 4 to 8 GPUs (nccl issue 1455). Blackwell: 673, 678,
# 778, 811, 838 (ml-engineering, nccl 2.27.7). Sizes beyond the last keep its gain.
NVLS_GAIN: Final = {
    "9": (1.0, 1.0, 1.0, 1.0, 1.0, 1.13, 1.19, 1.24, 1.29),
    "10": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.14, 1.19, 1.23),
}
"""By compute capability's major part; the position is the set's size."""

PCIE_RATE: Final = {3: 12.0, 4: 24.0, 5: 48.0, 6: 96.0}
"""An x16 slot by PCIe generation, as NCCL counts it."""

UNKNOWN_PCIE_GEN: Final = 3

# What of the slot's rate is left when a ring's worst hop has this level. SYS is measured: 10 on
# V100 (gen 3) and 20 on A100 (gen 4, nccl-tests issue 178), 5/6 of the slot. The levels between
# are ours: each step through a switch or bridge costs a little, so that nearer is always better.
PCIE_EFFICIENCY: Final = {
    Level.PIX: 0.92,
    Level.PXB: 0.90,
    Level.PHB: 0.87,
    Level.NODE: 0.85,
    Level.SYS: 5 / 6,
}


def nvlink_rate(computes: Iterable[str], *, switched: bool) -> float:
    """Return the rate of one NVLink among GPUs of these compute capabilities: the slowest's."""
    return min(_rate_of(compute, switched=switched) for compute in computes)


def _rate_of(compute: str, *, switched: bool) -> float:
    rate = NVLINK_RATE.get(compute) or NVLINK_RATE.get(_major(compute), UNKNOWN_NVLINK_RATE)
    return rate.switched if switched else rate.direct


def nvls_gain(computes: Iterable[str], size: int) -> float:
    """Return what in-switch reduction adds for a set of this size: the smallest gain of its GPUs.

    >>> nvls_gain(["9.0"], 8), nvls_gain(["9.0"], 4), nvls_gain(["8.0"], 8)
    (1.29, 1.0, 1.0)
    """
    return min(_gain_of(compute, size) for compute in computes)


def _gain_of(compute: str, size: int) -> float:
    gains = NVLS_GAIN.get(_major(compute), (1.0,))
    return gains[min(size, len(gains) - 1)]


def pcie_rate(generations: Iterable[int], worst: Level) -> float:
    """Return the rate of a PCIe ring whose worst hop is `worst`: the oldest generation decides."""
    slots = (PCIE_RATE.get(gen, PCIE_RATE[UNKNOWN_PCIE_GEN]) for gen in generations)
    return min(slots) * PCIE_EFFICIENCY[worst]


def _major(compute: str) -> str:
    return compute.partition(".")[0]
