"""What keeping decisions costs: the same decisions with and without, and what the store takes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from scheduler.engine.cluster import ClusterState
from scheduler.engine.planner import Planner
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE
from scheduler.explain.recorder import Recorder
from scheduler.explain.store import Limits, Store
from tests.bench import engine
from tests.bench.memory import resident_mib
from tests.bench.rows import Row, percentile

_TABLE = "Keeping decisions (explain), 20 nodes changed since the one before"
_STORE = "The store of decisions"
KEPT = 10_000


class Taken(NamedTuple):
    """Seconds of decisions with and without keeping them, and of working up what is kept.

    The last happens after the answer is on its way.
    """

    kept: list[float]
    bare: list[float]
    after: list[float]


class Filled(NamedTuple):
    """A store after many decisions: records, bytes by its own count, and MiB of the process."""

    records: int
    nbytes: int
    mib: float
    limits: Limits


def time_decisions(nodes: int, times: int) -> Taken:
    """Decide on pods of all kinds, in turns with and without keeping what was found out."""
    dice = np.random.default_rng(1)
    state = engine.make_cluster(nodes, dice)
    names = [f"node-{at:06}" for at in range(nodes)]
    planner = _planner(state)
    recorder = Recorder(Store(Limits()), planner)
    pods = list(engine.pods().values())
    taken = Taken([], [], [])
    for turn in range(2 * times + 2 * len(pods)):
        pod = msgspec.structs.replace(pods[turn // 2 % len(pods)], uid=f"u{turn}")
        # The second of a pair finds caches warm: each kind of pod is kept first as often as last.
        kept = bool(turn % 2) ^ bool(turn // (2 * len(pods)) % 2)
        engine.change_some(state, names, dice)
        begun = time.perf_counter()
        decision = planner.decide(pod, names, now=0.0)
        if kept:
            recorder.decided(decision, time.perf_counter() - begun)
        seconds = time.perf_counter() - begun
        if turn < 2 * len(pods):
            recorder.settle()
            continue  # the first of each kind builds tables
        (taken.kept if kept else taken.bare).append(seconds)
        if kept:
            begun = time.perf_counter()
            recorder.settle()
            taken.after.append(time.perf_counter() - begun)
    return taken


def fill(nodes: int, decisions: int, limits: Limits | None = None) -> Filled:
    """Keep so many decisions, each of another pod, and see what that takes."""
    limits = limits or Limits()
    dice = np.random.default_rng(1)
    state = engine.make_cluster(nodes, dice)
    names = [f"node-{at:06}" for at in range(nodes)]
    planner = _planner(state)
    recorder = Recorder(Store(limits), planner)
    pods = list(engine.pods().values())
    made = [planner.decide(pod, names, now=0.0) for pod in pods]
    before = resident_mib(os.getpid())
    for number in range(decisions):
        decision = made[number % len(made)]
        pod = msgspec.structs.replace(decision.request, uid=f"u{number}", name=f"p{number}")
        recorder.decided(msgspec.structs.replace(decision, request=pod), 0.0)
        recorder.settle()
    store = recorder.store
    return Filled(len(store), store.nbytes, resident_mib(os.getpid()) - before, limits)


def rows(*, quick: bool) -> Iterator[Row]:
    """Measure both on 5,000 nodes."""
    nodes, times = 5_000, 1_000 if quick else 5_000
    taken = time_decisions(nodes, times)
    for percent in (50, 99):
        yield Row(
            table=_TABLE,
            name=f"{nodes:,} nodes, a decision, p{percent}: kept / not kept",
            ours=1000 * percentile(taken.kept, percent),
            other=1000 * percentile(taken.bare, percent),
            unit="ms",
        )
    yield Row(
        table=_TABLE,
        name=f"{nodes:,} nodes, working up what is kept, after the answer, p50",
        ours=1000 * percentile(taken.after, 50),
        unit="ms",
        spread=(1000 * min(taken.after), 1000 * max(taken.after)),
    )
    filled = fill(nodes, KEPT)
    yield Row(
        table=_STORE,
        name=f"{nodes:,} nodes, {KEPT:,} decisions of other pods: its own count / its bound",
        ours=filled.nbytes / (1 << 20),
        other=filled.limits.nbytes / (1 << 20),
        unit="MiB",
        note=f"{filled.records:,} records kept",
    )
    yield Row(
        table=_STORE,
        name="the same: the process' growth / the bound",
        ours=filled.mib,
        other=filled.limits.nbytes / (1 << 20),
        unit="MiB",
    )


def _planner(state: ClusterState) -> Planner:
    return Planner(
        state,
        built_in(),
        BUILT_IN,
        default_profile=DEFAULT_PROFILE,
        hold_seconds=5.0,
        shortlist=3,
    )
