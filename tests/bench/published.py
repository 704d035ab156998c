"""What others say of themselves, and what is known of them from elsewhere, beside ours.

None of it is measured here: other machines, other clusters. So no ratio is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from tests.bench.rows import Row


class Published(msgspec.Struct, frozen=True):
    """A figure of somebody else. `ours` is a pattern of the row of ours that comes nearest."""

    what: str
    value: float
    unit: str
    setting: str
    ours: str = ""


_AT_100: Final = "100 nodes*pods of one GPU: shortlist"
_AT_1000: Final = "1,000 nodes*pods of one GPU: shortlist"
_AT_5000: Final = "5,000 nodes*pods of one GPU: shortlist"

RATES: Final = (
    Published("Koordinator", 45.6, "pods/s", "100 kwok nodes, p99 13 s; 2026-07", _AT_100),
    Published("KAI, one-GPU jobs", 10.1, "pods/s", "500 kwok nodes; 2026-07", _AT_1000),
    Published("KAI, an NCCL simulation", 2.5, "pods/s", "500 kwok nodes; 2026-07", _AT_1000),
    Published("DRA, template", 244, "pods/s", "to 273; 500 nodes, scheduler_perf", _AT_1000),
    Published("DRA, matchAttribute", 110, "pods/s", "to 117; 500 nodes, scheduler_perf", _AT_1000),
    Published("kube-scheduler alone", 300, "pods/s", "to 578; kubernetes#127912", _AT_5000),
    Published("Gödel", 1000, "pods/s", "to 1,300; 30,000 nodes; its paper", _AT_5000),
    Published("Kueue, workloads admitted", 42.7, "pods/s", "15,000 of them; its CI's baseline"),
)
TIMES: Final = (
    Published(
        "KAI, verdict that 10 pods of 8 GPUs fit nowhere",
        249_500,
        "ms",
        "500 nodes; ours: one pod, 1,000 nodes",
        "1,000 nodes: verdict*, shortlist",
    ),
    Published("HAMi, lock of a node for each bind", 20, "ms", "about, and one after the other"),
    Published(
        "NVIDIA's plugin 0.20, GetPreferredAllocation, p50",
        2.7,
        "ms",
        "to 15; another mock, 2 cores",
        "GetPreferredAllocation*p50",
    ),
    Published(
        "NVIDIA's plugin 0.20, GetPreferredAllocation, p99",
        8,
        "ms",
        "to 115; another mock, 2 cores",
        "GetPreferredAllocation*p99",
    ),
    Published(
        "NVIDIA's plugin 0.20, registered again",
        6,
        "ms",
        "to 31; another mock, 2 cores",
        "registered again*",
    ),
    Published(
        "NVIDIA's allocator, 3 of 16 GPUs",
        57e6,
        "us",
        "to 61 s; ours: the slowest size",
        "dgx2*the slowest size",
    ),
)


def rows(measured: Iterable[Row]) -> Iterator[Row]:
    """Return all of them beside the rows of this run that come nearest."""
    known = list(measured)
    for kind, figures in (("pods a second", RATES), ("times", TIMES)):
        for one in figures:
            nearest = next((row for row in known if fnmatchcase(row.name, one.ours)), None)
            yield Row(
                table=f"Published by others or measured elsewhere, NOT here: {kind}",
                name=one.what,
                ours=None if nearest is None else nearest.ours,
                other=one.value,
                unit=one.unit,
                foreign=True,
                note=one.setting,
            )
