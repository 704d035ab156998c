"""What is kept of a pod's decisions: kilobytes where a decision has megabytes."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.engine.arrays import FloatArray
from scheduler.engine.columns import Hardware
from scheduler.engine.request import PodRequest
from scheduler.explain.names import Ids, NameTable
from scheduler.load.report import LoadReport
from topology.gpuset import GpuSet

Floats = NDArray[np.float32]

Outcome = Literal["planned", "refused", "deferred", "bound", "gone"]
"""What became of a pod. ``planned``: a node was answered, no bind yet. ``deferred``: to be tried
again by the clock. ``gone``: it ended before it was bound. The others say what they say."""

FIXED_BYTES = 900
"""What a record takes beside its arrays, in round numbers: structs, texts, entries."""


class Strategy(msgspec.Struct, frozen=True):
    """A score plugin and its share of the total, 0 to 1."""

    name: str
    weight: float


class ScoreTable(msgspec.Struct, frozen=True):
    """Scores of accepted nodes, the best total first. `raw` and `normalised` are by strategy."""

    ids: Ids
    totals: FloatArray
    raw: Floats
    normalised: Floats

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        return self.ids.nbytes + self.totals.nbytes + self.raw.nbytes + self.normalised.nbytes + 512


class Refused(msgspec.Struct, frozen=True):
    """One reason, and the nodes that it refused as a packed set of numbers."""

    by: str
    reason: str
    busy: bool
    count: int
    nodes: bytes


class Held(msgspec.Struct, frozen=True):
    """A reservation that was in force: whose, where, which GPUs, and how far it had come."""

    uid: str
    node: str
    uuids: tuple[str, ...]
    stage: str


class ChosenSet(msgspec.Struct, frozen=True):
    """A set on one node, and what it was chosen from. `hardware` is None without topology."""

    node: str
    score: float
    uuids: tuple[str, ...]
    members: GpuSet
    free: GpuSet
    bus_bandwidth_gbs: float
    loss: float
    pair_score: int
    hardware: Hardware | None


class MixLine(msgspec.Struct, frozen=True):
    """One class of the pods that are expected, and its share of them."""

    gpus: int
    gpu_share: float
    cpu: float
    share: float
    models: tuple[str, ...] = ()
    gpu_memory_mib: int = 0


class Workload(msgspec.Struct, frozen=True):
    """What the nodes were judged against.

    `source` tells where the classes come from (``learned``, ``given``) and `seen` out of how many
    pods, `sizes` is the mix of
    request sizes by which links that are left are valued.
    """

    source: str
    seen: float
    classes: tuple[MixLine, ...]
    sizes: tuple[tuple[int, float], ...]


class Verdict(msgspec.Struct, frozen=True):
    """One decision. Pods of the same shape that were refused alike share it.

    `at` is in Unix seconds. `considered` is how many nodes were looked at, `accepted` how many
    passed; `scores` holds all of these if `complete`, else those at the top. `options` are the
    nodes that were answered, the best first; `runners_up` sets on the next best. `claims` is how
    many reservations were in force, `held` those on the nodes at the top. `faults` are the plugins
    that were left out, and why.
    """

    at: float
    profile: str
    tolerance: float
    table: NameTable
    considered: int
    accepted: int
    nodes: bytes
    unknown: tuple[str, ...]
    refusals: tuple[Refused, ...]
    could_preempt: int
    strategies: tuple[Strategy, ...]
    scores: ScoreTable | None
    complete: bool
    options: tuple[ChosenSet, ...]
    runners_up: tuple[ChosenSet, ...]
    workload: Workload
    loads: tuple[LoadReport, ...]
    claims: int
    held: tuple[Held, ...]
    seconds: dict[str, float]
    faults: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Roughly what it takes of memory, the table of names apart."""
        size = FIXED_BYTES + len(self.nodes) + sum(len(one.nodes) + 120 for one in self.refusals)
        size += 400 * (len(self.options) + len(self.runners_up)) + 1024 * len(self.loads)
        size += 256 * len(self.held) + sum(80 + len(name) for name in self.unknown)
        return size + (self.scores.nbytes if self.scores is not None else 0)


class Binding(msgspec.Struct, frozen=True):
    """What bind gave: container -> uuids, and how the set came about (see Planner.fix)."""

    at: float
    node: str
    how: str
    containers: dict[str, tuple[str, ...]]
    bus_bandwidth_gbs: float
    seconds: float


class Record(msgspec.Struct, frozen=True):
    """What is known of one pod.

    `since` is when it was first asked about, `updated` when last, in Unix seconds; `attempts`
    counts those. `verdict` is the last decision, None if the pod was refused for itself alone.
    `text` says why it waits.
    """

    request: PodRequest
    since: float
    updated: float
    attempts: int
    outcome: Outcome
    text: str = ""
    verdict: Verdict | None = None
    binding: Binding | None = None
    trace: str = ""

    @property
    def nbytes(self) -> int:
        """Roughly what it takes of memory."""
        return FIXED_BYTES + (self.verdict.nbytes if self.verdict is not None else 0)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.request.namespace, self.request.name
