"""The choice among a topology's GPUs, by its class's tables."""

from __future__ import annotations

import threading

from deviceplugin.admission.allocation import Chooser
from topology.gpuset import GpuSet
from topology.model import NodeTopology, classify
from topology.policies import choose
from topology.profiles import profile_named
from topology.tables import TABLE_GPUS, tables_for


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

        Beyond TABLE_GPUS each choice is a search of its own, up to seconds: one of them readies
        what they share, all sizes would keep a node of 64 GPUs from registering for minutes.
        """
        choose_set = self(topology)
        sizes = len(topology.gpus) if len(topology.gpus) <= TABLE_GPUS else 1
        for count in range(1, sizes + 1):
            choose_set(topology.everything, count, GpuSet(0))

    def _make(self, topology: NodeTopology) -> Chooser:
        tables = tables_for(classify(topology))

        def choose_set(free: GpuSet, count: int, must: GpuSet) -> GpuSet:
            return choose(tables, free, count, must=must, profile=self._profile).members

        return choose_set
