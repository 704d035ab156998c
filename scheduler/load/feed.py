"""The edge that keeps the load column fresh: a background task, and the sinks of two watches.

Each round asks Prometheus if its circuit allows, else the metrics API. Then the column is
written, whatever came: samples age and pods start without any answer. A pod that is bound changes
its node's load at once, so that the next decision sees it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from runtime.objects import Node, Pod
from scheduler.load.breaker import Breaker, Rules, State, admit, fail, succeed
from scheduler.load.errors import Outcome
from scheduler.load.metrics import LoadMetrics
from scheduler.load.nodes import NodeBook
from scheduler.load.recent import RecentPods
from scheduler.load.report import LoadReport
from scheduler.load.samples import Reading
from scheduler.load.sources import Asked, Source
from scheduler.load.table import LoadTable

JITTER: Final = 0.1
"""Rounds begin up to this share earlier or later: replicas must not ask in step."""


class Column(Protocol):
    """Takes load: 0 idle, 1 full, NaN unknown."""

    def put_loads(self, loads: Mapping[str, float]) -> None:
        """Take the load of all nodes; that of others is unknown."""

    def put_load(self, name: str, load: float) -> None:
        """Take one node's load."""


_log = structlog.get_logger("scheduler.load")


class Guarded:
    """A source behind its circuit breaker. `chance` gives numbers from 0 to 1.

    `steady` gives seconds for the breaker's pauses: setting a clock must not make them longer.
    """

    def __init__(
        self,
        source: Source,
        rules: Rules,
        metrics: LoadMetrics,
        chance: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.breaker = Breaker()
        self._rules = rules
        self._metrics = metrics
        self._chance = chance
        self._steady = steady
        self._told: tuple[State, frozenset[Outcome]] = ("closed", frozenset({"ok"}))
        self._examples: dict[str, str] = {}
        metrics.circuit(source.name, self.breaker)

    async def ask(self, nodes: NodeBook, clock: Callable[[], float]) -> tuple[Reading, ...]:
        """Ask what the circuit allows: all questions, the first alone as a probe, or none.

        A round without a single sample is a failure.
        """
        self.breaker = admit(self.breaker, self._steady())
        self._metrics.circuit(self.source.name, self.breaker)
        if self.breaker.state == "open":
            return ()
        answers: list[Asked] = []
        questions = range(self.source.questions)
        if self.breaker.state == "half_open":
            answers.append(await self.source.ask(questions[0], nodes, clock()))
            questions = questions[1:] if answers[0].outcome == "ok" else range(0)
        now = clock()
        answers += await asyncio.gather(
            *(self.source.ask(question, nodes, now) for question in questions)
        )
        readings = tuple(reading for asked in answers for reading in asked.readings)
        await self._judge(answers, readings)
        return readings

    async def _judge(self, answers: list[Asked], readings: tuple[Reading, ...]) -> None:
        name = self.source.name
        empty = not any(reading.samples for reading in readings)
        outcomes: set[Outcome] = set()
        for asked in answers:
            outcome: Outcome = "empty" if empty and asked.outcome == "ok" else asked.outcome
            outcomes.add(outcome)
            self._metrics.asked(name, outcome, asked.seconds)
        for reading in readings:
            self._metrics.refused(reading.metric, reading.faults)
            self._tell(reading)
        if empty:
            self.breaker = fail(self.breaker, self._rules, self._steady(), self._chance())
            await self.source.refresh()
        else:
            self.breaker = succeed(self.breaker)
        self._metrics.circuit(name, self.breaker)
        told = (self.breaker.state, frozenset(outcomes))
        if told != self._told:
            # Not at each round: a server may be away for days.
            problem = "; ".join(asked.problem for asked in answers if asked.problem)
            log = _log.info if outcomes == {"ok"} else _log.warning
            log(
                "asked",
                source=name,
                circuit=self.breaker.state,
                outcomes=sorted(outcomes),
                problem=problem or None,
            )
        self._told = told

    def _tell(self, reading: Reading) -> None:
        """Log what was not taken when its kind changes."""
        kinds = " ".join(sorted(reading.faults))
        if kinds and self._examples.get(reading.metric) != kinds:
            _log.warning(
                "samples refused",
                source=reading.source,
                metric=reading.metric,
                counts=dict(reading.faults),
                example=reading.example,
            )
        self._examples[reading.metric] = kinds


class LoadFeed:
    """Keeps the load column. `nodes` and `pods` are to be told by the watches.

    Of the sources the first is asked; the next one only while the circuit before it is open.
    `clock` gives Unix seconds.
    """

    def __init__(
        self,
        *,
        nodes: NodeBook,
        pods: RecentPods,
        table: LoadTable,
        sources: tuple[Guarded, ...],
        metrics: LoadMetrics,
        column: Column,
        refresh_seconds: float,
        rng: random.Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._nodes = nodes
        self._pods = pods
        self._table = table
        self._sources = sources
        self._metrics = metrics
        self._column = column
        self._refresh = refresh_seconds
        self._rng = rng
        self._clock = clock
        self.nodes = _NodeSink(nodes)
        self.pods = _PodSink(pods, self._touch, self._settle)

    async def run(self) -> None:
        """Refresh until cancelled."""
        try:
            while True:
                await self.refresh()
                jitter = self._rng.uniform(1 - JITTER, 1 + JITTER)
                await asyncio.sleep(self._refresh * jitter)
        finally:
            await self.close()

    async def refresh(self) -> None:
        """Do one round."""
        if self._nodes.directory.names:
            for reading in await self._ask():
                self._table.take(reading, self._clock())
        now = self._clock()
        self._pods.forget(now)
        self._settle()
        self._metrics.covered(self._table.covered(now))
        self._metrics.pods.set(len(self._pods))

    async def close(self) -> None:
        """Close the sources' connections."""
        for guarded in self._sources:
            await guarded.source.close()

    def report(self, node: str) -> LoadReport | None:
        """Return what a node's load is made of now; None if there is no such node."""
        return self._table.report(node, self._clock())

    async def _ask(self) -> tuple[Reading, ...]:
        readings: tuple[Reading, ...] = ()
        for guarded in self._sources:
            readings += await guarded.ask(self._nodes, self._clock)
            if guarded.breaker.state != "open":
                break
        return readings

    def _settle(self) -> None:
        """Write all nodes' load anew."""
        names, loads = self._table.settle(self._clock())
        self._column.put_loads(dict(zip(names, loads.tolist(), strict=True)))

    def _touch(self, node: str) -> None:
        """Write one node's load anew."""
        load = self._table.load_of(node, self._clock())
        if load is not None:
            self._column.put_load(node, load)


class _NodeSink:
    """The nodes' reflector speaks to this."""

    def __init__(self, nodes: NodeBook) -> None:
        self._nodes = nodes

    def listed(self, objects: tuple[Node, ...]) -> None:
        """Take a complete list."""
        self._nodes.keep(objects)

    def changed(self, obj: Node) -> None:
        """Take a new or changed node."""
        self._nodes.take(obj)

    def deleted(self, obj: Node) -> None:
        """Take a node's end."""
        self._nodes.drop(obj.metadata.name)


class _PodSink:
    """The pods' reflector speaks to this."""

    def __init__(
        self, pods: RecentPods, touched: Callable[[str], None], settle: Callable[[], None]
    ) -> None:
        self._pods = pods
        self._touched = touched
        self._settle = settle

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Take a complete list."""
        self._pods.keep(objects)
        self._settle()

    def changed(self, obj: Pod) -> None:
        """Take a new or changed pod."""
        node = self._pods.take(obj)
        if node is not None:
            self._touched(node)

    def deleted(self, obj: Pod) -> None:
        """Take a pod's end."""
        node = self._pods.drop(obj.metadata.uid)
        if node is not None:
            self._touched(node)
