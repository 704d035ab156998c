"""The choice among a topology's GPUs, by its class's tables."""

from __future__ import annotations

import threading
from typing import Final

from deviceplugin.admission.allocation import Chooser
from topology.gpuset import GpuSet
from topology.model import NodeTopology, classify
from topology.policies import choose
from topology.profiles import profile_named
from topology.tables import TABLE_GPUS, tables_for

REMEMBERED_GPUS: Final = 8
"""1,024 choices, 8 ms and 0.3 MiB. One that is remembered takes 0.01 ms after a rest, as admissions
come, and 0.13 one that is not: its arrays are in no cache of the processor any more."""


class Choosers:
    """Makes the chooser of a topology by a profile; the last one made is kept.

    Raises SelectionError for an unknown profile.
    """

    def __init__(self, profile: str) -> None:
        self._profile = profile_named(profile)
        self._lock = threading.Lock()
        self._last: tuple[NodeTopology, Chooser] | None = None

    def __call__(self, topology: NodeTopology) -> Chooser:
        """Return the chooser; quick once the tables of the topology's class exist."""
        with self._lock:
            if self._last is None or self._last[0] is not topology:
                self._last = (topology, self._make(topology))
            return self._last[1]

    def warm(self, topology: NodeTopology) -> None:
        """Build what the first choices need, so that no admission waits for it (up to 1 s).

        Up to REMEMBERED_GPUS every choice among free GPUs is made now. Beyond TABLE_GPUS each is
        a search of its own, up to seconds: one of them readies what they share, all sizes would
        keep a node of 64 GPUs from registering for minutes.
        """
        choose_set = self(topology)
        gpus, whole = len(topology.gpus), topology.everything
        sizes = gpus if gpus <= TABLE_GPUS else 1
        for free in range(1, whole + 1) if gpus <= REMEMBERED_GPUS else (whole,):
            for count in range(1, min(sizes, free.bit_count()) + 1):
                choose_set(GpuSet(free), count, GpuSet(0))

    def _make(self, topology: NodeTopology) -> Chooser:
        tables = tables_for(classify(topology))

        def choose_set(free: GpuSet, count: int, must: GpuSet) -> GpuSet:
            return choose(tables, free, count, must=must, profile=self._profile).members

        return choose_set
