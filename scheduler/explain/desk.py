"""Where questions are answered: from the store, the inventory and the cluster's state.

It runs on the thread that owns these, and changes none of them.
"""

from __future__ import annotations

import asyncio
from typing import Final, get_args

from scheduler.explain.errors import BadRequestError
from scheduler.explain.fleet import Fleet
from scheduler.explain.record import Outcome, Record
from scheduler.explain.recorder import Recorder
from scheduler.explain.shapes import (
    ClusterAnswer,
    HostScore,
    NodeAnswer,
    NodeLine,
    PodAnswer,
    PodLine,
    StrategyScores,
)
from scheduler.explain.views import show_line, show_pod, show_scores, show_strategies

OUTCOMES: Final = get_args(Outcome)


class Desk:
    """Answers about pods, nodes and the cluster."""

    def __init__(self, recorder: Recorder, fleet: Fleet) -> None:
        self._recorder = recorder
        self._fleet = fleet

    def scores(self, namespace: str, name: str, *, top: int) -> list[HostScore]:
        """Return the best nodes of a pod's last decision."""
        return show_scores(self._find(namespace, name), top)

    def strategies(self, namespace: str, name: str, *, top: int) -> list[StrategyScores]:
        """Return each strategy's best nodes."""
        return show_strategies(self._find(namespace, name), top)

    def pod(self, namespace: str, name: str, *, top: int) -> PodAnswer:
        """Return everything that is known of a pod."""
        return show_pod(self._find(namespace, name), top)

    def pods(self, outcome: str | None, *, limit: int) -> list[PodLine]:
        """Return the pods that were asked about, the last first.

        `outcome` may be one of OUTCOMES, or ``pending`` for all that are not bound.
        """
        if outcome not in (None, "pending", *OUTCOMES):
            known = ", ".join(("pending", *OUTCOMES))
            raise BadRequestError("outcome", f"{str(outcome)[:40]!r} is none of {known}")
        self._recorder.settle()
        store = self._recorder.store
        store.expire(self._recorder.clock())
        lines = []
        for record in store:
            wanted = outcome is None or record.outcome == outcome
            if wanted or (outcome == "pending" and record.outcome != "bound"):
                lines.append(show_line(record))
                if len(lines) == limit:
                    break
        return lines

    async def nodes(self) -> list[NodeLine]:
        """Return all nodes by name."""
        self._recorder.settle()
        return await asyncio.to_thread(self._fleet.nodes().finish)

    def node(self, name: str) -> NodeAnswer:
        """Return one node in full. Raises UnknownNodeError."""
        self._recorder.settle()
        return self._fleet.node(name)

    async def cluster(self) -> ClusterAnswer:
        """Return what the cluster has, what is left of it, and which sets that gives."""
        self._recorder.settle()
        # Thousands of different free sets of 16 GPUs would hold the verbs up for seconds.
        return await asyncio.to_thread(self._fleet.survey().finish)

    def _find(self, namespace: str, name: str) -> Record:
        self._recorder.settle()
        return self._recorder.store.find(namespace, name, self._recorder.clock())
