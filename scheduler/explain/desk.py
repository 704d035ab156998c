"""Where questions are answered: from the store, the inventory and the cluster's state.

It runs on the thread that owns these, and changes none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Final, get_args

import msgspec

from scheduler.explain.dry_run import DryRuns
from scheduler.explain.errors import (
    BadRequestError,
    ExpiredError,
    UnaskedError,
    UnknownPodError,
)
from scheduler.explain.fleet import Fleet
from scheduler.explain.fleet_shapes import ClusterAnswer, NodeAnswer, NodeGpu, NodeLine
from scheduler.explain.question import read_question
from scheduler.explain.record import Outcome, Record
from scheduler.explain.recorder import Recorder
from scheduler.explain.shapes import DryRunAnswer, HostScore, PodAnswer, PodLine, StrategyScores
from scheduler.explain.store import Store
from scheduler.explain.unasked import WaitingPods, show_waiting
from scheduler.explain.views import show_line, show_pod, show_scores, show_strategies
from scheduler.explain.waits import Waits

OUTCOMES: Final = get_args(Outcome)

ASKABLE: Final = ("pending", "waiting", *OUTCOMES)

ENDED: Final = frozenset({"bound", "gone"})
"""Outcomes of pods that wait no more."""


class Desk:
    """Answers about pods, nodes and the cluster."""

    def __init__(
        self,
        recorder: Recorder,
        fleet: Fleet,
        waits: Waits,
        dry_runs: DryRuns,
        waiting: WaitingPods,
    ) -> None:
        self._recorder = recorder
        self._fleet = fleet
        self._waits = waits
        self._dry_runs = dry_runs
        self._waiting = waiting

    def scores(self, namespace: str, name: str, *, top: int) -> list[HostScore]:
        """Return the best nodes of a pod's last decision."""
        return show_scores(self._find(namespace, name), top)

    def strategies(self, namespace: str, name: str, *, top: int) -> list[StrategyScores]:
        """Return each strategy's best nodes."""
        return show_strategies(self._find(namespace, name), top)

    def pod(self, namespace: str, name: str, *, top: int) -> PodAnswer:
        """Return everything that is known of a pod, and what would help one that waits."""
        record = self._find(namespace, name)
        answer = show_pod(record, top)
        if record.verdict is None or record.verdict.options or record.outcome in ENDED:
            return answer
        return msgspec.structs.replace(answer, waiting=self._waits.show(record.request))

    def pods(self, outcome: str | None, *, limit: int) -> list[PodLine]:
        """Return the pods that were asked about, the last first.

        `outcome` may be one of OUTCOMES, ``waiting`` for those that nobody asked us about, the
        oldest first, or ``pending`` for all that wait.
        """
        if outcome not in (None, *ASKABLE):
            known = ", ".join(ASKABLE)
            raise BadRequestError("outcome", f"{str(outcome)[:40]!r} is none of {known}")
        self._recorder.settle()
        store = self._recorder.store
        store.expire(self._recorder.clock())
        return [*islice(self._chosen(outcome, store), limit)]

    def _chosen(self, outcome: str | None, store: Store) -> Iterator[PodLine]:
        for record in store:
            wanted = outcome is None or record.outcome == outcome
            if wanted or (outcome == "pending" and record.outcome not in ENDED):
                yield show_line(record)
        if outcome in {"pending", "waiting"}:
            for pod in self._waiting.oldest_first():
                if store.get(pod.uid) is None:
                    yield show_waiting(pod, None)

    async def dry_run(self, body: bytes, *, top: int) -> DryRunAnswer:
        """Return where pods would go. Raises BadRequestError, of which NotThereError."""
        self._recorder.settle()
        return await self._dry_runs.run(read_question(body), top)

    async def nodes(self) -> list[NodeLine]:
        """Return all nodes by name, as they are at this moment."""
        self._recorder.settle()
        taken = self._fleet.nodes()
        await asyncio.to_thread(taken.prepare)
        lines: list[NodeLine] = []
        for part in taken.parts():
            lines += part
            await asyncio.sleep(0)  # the verbs are on this loop
        return lines

    def node(self, name: str) -> NodeAnswer:
        """Return one node in full. Raises UnknownNodeError."""
        self._recorder.settle()
        return self._fleet.node(name)

    def gpus(self, name: str) -> tuple[NodeGpu, ...]:
        """Return a node's GPUs and who holds them: a tenth of the work of `node`."""
        self._recorder.settle()
        return self._fleet.gpus(name)

    async def cluster(self) -> ClusterAnswer:
        """Return what the cluster has, what is left of it, and which sets that gives."""
        self._recorder.settle()
        # Thousands of different free sets of 16 GPUs would hold the verbs up for seconds.
        return await asyncio.to_thread(self._fleet.survey().finish)

    def _find(self, namespace: str, name: str) -> Record:
        self._recorder.settle()
        try:
            return self._recorder.store.find(namespace, name, self._recorder.clock())
        except (UnknownPodError, ExpiredError):
            pod = self._waiting.find(namespace, name)
            if pod is None:
                raise
            raise UnaskedError(namespace, name, show_waiting(pod, None).reason) from None
