"""What the API answers, as structs: `openapi` makes the document of them.

The two views of the scores have the field names that kube-scheduler's own HostPriority has; all
others are camelCase. Times are RFC 3339 in UTC, durations seconds, bandwidths GB/s. A `score` is
0 to 100, kube-scheduler's scale, not rounded to whole points; -100 stands for a node of unknown
topology, which ranks behind all others.
"""

from __future__ import annotations

import msgspec

from scheduler.load.report import LoadReport


class HostScore(msgspec.Struct, frozen=True, rename="pascal"):
    """One node and its score."""

    host: str
    score: float


class StrategyScores(msgspec.Struct, frozen=True, rename="pascal"):
    """One strategy and its best nodes.

    `Weight` is its share of the total, 0 to 1: the sum of Weight x Score over the strategies is
    the node's total.
    """

    strategy: str
    weight: float
    host_priority: tuple[HostScore, ...]


class StrategyScore(msgspec.Struct, frozen=True):
    """What one strategy gave one node.

    `raw` is in the strategy's own unit, `normalised` 0 to 100, `weighted` what it added to the
    node's score.
    """

    strategy: str
    raw: float
    normalised: float
    weighted: float


class NodeScore(msgspec.Struct, frozen=True):
    """One node's score and what it is made of."""

    node: str
    score: float
    strategies: tuple[StrategyScore, ...]


class GpuAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """One GPU of a set."""

    position: int
    uuid: str
    model: str
    numa_node: int | None


class LinkAnswer(msgspec.Struct, frozen=True):
    """What links two GPUs of a set, in the words of ``nvidia-smi topo -m``."""

    gpus: tuple[int, int]
    link: str


class SetAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A set on one node: its GPUs, links and predicted bus bandwidth.

    `loss` is what the node's free GPUs lose of their worth to the pods to come, 0 to 1; `free`
    are the positions it was chosen from. Everything is empty on a node of unknown topology.
    """

    node: str
    score: float
    gpus: tuple[GpuAnswer, ...]
    links: tuple[LinkAnswer, ...]
    worst_link: str | None
    bus_bandwidth_gbs: float
    pair_score: int
    loss: float
    free: tuple[int, ...]


class RefusalAnswer(msgspec.Struct, frozen=True):
    """One reason, how many nodes it refused, and the first of them by name.

    `busy` tells that it may pass when pods go.
    """

    plugin: str
    reason: str
    busy: bool
    count: int
    nodes: tuple[str, ...]


class StrategyAnswer(msgspec.Struct, frozen=True):
    """A strategy that took part, and its share of the total, 0 to 1."""

    strategy: str
    weight: float


class ClassAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A class of pods that are expected: `share` is how much of the pods it is, 0 to 1."""

    gpus: int
    gpu_share: float
    cpu: float
    share: float
    gpu_models: tuple[str, ...]
    gpu_memory_mib: int


class WorkloadAnswer(msgspec.Struct, frozen=True):
    """The workload that nodes were judged against.

    `source` is ``learned`` (from `seen` pods) or ``given``; `sizes` maps request sizes to their
    weight where links that are left are valued.
    """

    source: str
    seen: float
    classes: tuple[ClassAnswer, ...]
    sizes: dict[str, float]


class ReservationAnswer(msgspec.Struct, frozen=True):
    """GPUs that another pod had claimed; `stage` is held, reserved or bound."""

    uid: str
    node: str
    gpus: tuple[str, ...]
    stage: str


class DecisionAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """One decision.

    `nodes` are the best, as many as were asked for; `complete` tells whether all accepted nodes'
    scores are still at hand. `options` are the nodes that were answered to kube-scheduler, the
    best first, `runnersUp` sets on the next best. `couldPreempt` is how many nodes would do if
    pods of lower priority were gone. `durations` are in seconds: ``decide``, and of it each
    plugin's. `faults` are the plugins that were left out.
    """

    time: str
    profile: str
    tolerance: float
    considered: int
    accepted: int
    could_preempt: int
    unknown: tuple[str, ...]
    refusals: tuple[RefusalAnswer, ...]
    strategies: tuple[StrategyAnswer, ...]
    nodes: tuple[NodeScore, ...]
    complete: bool
    options: tuple[SetAnswer, ...]
    runners_up: tuple[SetAnswer, ...]
    workload: WorkloadAnswer
    loads: tuple[LoadReport, ...]
    reservations_in_force: int
    reservations: tuple[ReservationAnswer, ...]
    durations: dict[str, float]
    faults: tuple[str, ...]


class BindingAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What bind gave the pod.

    `how` is confirmed (the planned set), chosen (anew), repeated, unknown (no topology) or seen
    (only the watch told of it).
    `containers` maps each to its GPUs' UUIDs.
    """

    time: str
    node: str
    how: str
    containers: dict[str, tuple[str, ...]]
    bus_bandwidth_gbs: float
    duration: float


class DemandAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What the pod asks for."""

    gpus: int
    gpu_share: float
    containers: dict[str, int]
    gpu_models: tuple[str, ...]
    gpu_memory_mib: int
    min_link: str | None
    strict: bool
    profile: str
    priority: int
    cpu: float
    memory_mib: int


class PodAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that is known of a pod.

    `outcome` is planned (a node was answered, no bind yet), refused, deferred (to be tried again
    by the clock), bound or gone. `since` is when it was first asked about, `updated` when last, in
    `attempts` tries. `reason` says why it waits, `waiting` what would help. `trace` is the W3C
    traceparent of its first filter call, "" if no spans are sent.
    """

    namespace: str
    name: str
    uid: str
    outcome: str
    since: str
    updated: str
    attempts: int
    reason: str
    asks: DemandAnswer
    decision: DecisionAnswer | None
    binding: BindingAnswer | None
    waiting: WaitingAnswer | None = None
    trace: str = ""


class PodLine(msgspec.Struct, frozen=True):
    """A pod in a list."""

    namespace: str
    name: str
    uid: str
    outcome: str
    since: str
    updated: str
    attempts: int
    gpus: int
    node: str | None
    score: float | None
    reason: str


class ErrorAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong, in one line; `place` names the parameter or field if there is one."""

    error: str
    place: str = ""


class HolderAnswer(msgspec.Struct, frozen=True):
    """Who holds a GPU: ``namespace/name`` and UID, as far as known.

    `how` is real (the kubelet gave it out), promised (the pod is bound with it), reserved (a bind
    is under way) or held (planned).
    """

    pod: str
    uid: str
    how: str


class WayAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A node on which the pod would get a set if some pods were gone.

    `gpus` are the set's positions, `missing` those of them that are not free; `pods` hold them.
    """

    node: str
    gpus: tuple[int, ...]
    missing: tuple[int, ...]
    pods: tuple[HolderAnswer, ...]
    worst_link: str | None
    bus_bandwidth_gbs: float


class WaitingAnswer(msgspec.Struct, frozen=True):
    """What a pod waits for, as of now.

    `ways` need the fewest pods to go, the first the fewest. There is none for a pod that asks for
    a part of a GPU, or that no node could take if it were empty: `possible` is on how many nodes
    it could run then.
    """

    help: str
    possible: int
    ways: tuple[WayAnswer, ...]


class DryRunPod(msgspec.Struct, frozen=True, rename="camel"):
    """Where a pod would go: `outcome` is placed or refused.

    `scores` and `strategies` are the two views of its decision, `set` what it would get.
    """

    namespace: str
    name: str
    outcome: str
    node: str | None
    reason: str
    scores: tuple[HostScore, ...]
    strategies: tuple[StrategyScores, ...]
    set: SetAnswer | None
    decision: DecisionAnswer | None
    waiting: WaitingAnswer | None


class DryRunAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Where the pods would go, one after the other, each with those before it in place.

    `changes` says what was changed first; `notChecked` what kube-scheduler looks at and a dry-run
    does not.
    """

    pods: tuple[DryRunPod, ...]
    changes: tuple[str, ...]
    not_checked: tuple[str, ...]
