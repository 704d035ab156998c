"""What a demo run comes to: the numbers that others rely on, and whether it went well. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from embedded.ledger import Mismatch, Verdict
from runtime.objects import Pod


class FaultReport(msgspec.Struct, frozen=True):
    """What an injected fault did.

    `at` is when it began, in seconds after the first pod; `recovered_after` the seconds from its
    end until everything was well again, None if that did not come. `what` says what was done.
    """

    kind: str
    node: str
    at: float
    what: str
    recovered_after: float | None


class LeftOut(msgspec.Struct, frozen=True):
    """Rows of a pod list that were not taken, by cause, and rows not reached."""

    shared: int = 0
    gpu_spec: int = 0
    not_reached: int = 0


class Report(msgspec.Struct, frozen=True):
    """The summary of a run; `--json` prints it.

    `bound` counts pods that ever got a node, `running` those that run at the end, `honoured` those
    of them whose containers all saw exactly the annotated set, `completed_honoured` the like of
    pods that ended by themselves. `mismatched` counts containers over the whole run,
    `drifted` those that an injected GPU loss explains, `double_allocated` a GPU seen by two
    containers at one time. `story` is what the nodes tell of a script of faults: their Events and
    counters. `pending_reasons` counts the reasons of pods without a node.
    """

    nodes: int
    gpus: int
    gpus_in_use: int
    machines: dict[str, int]
    pods: int
    bound: int
    running: int
    pending: int
    failed: int
    completed: int
    honoured: int
    completed_honoured: int
    mismatched: int
    drifted: int
    double_allocated: int
    pending_reasons: dict[str, int]
    failed_reasons: dict[str, int]
    mismatches: tuple[Mismatch, ...]
    doubles: tuple[str, ...]
    faults: tuple[FaultReport, ...]
    restarts: dict[str, int]
    story: tuple[str, ...]
    left_out: LeftOut
    settled: bool
    full_after_seconds: float | None
    startup_seconds: float
    seconds: float

    @property
    def well(self) -> bool:
        """Whether the run proves what it should: the exit code is 0 only then.

        Every container saw exactly its set (or a drift that an injected loss explains), no GPU
        was given twice, everything that was broken recovered, nothing was left in between, and,
        where nothing was broken, no pod failed.
        """
        return (
            self.mismatched == 0
            and self.double_allocated == 0
            and self.settled
            and all(fault.recovered_after is not None for fault in self.faults)
            and (bool(self.faults) or self.failed == 0)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return {**built, "well": self.well}


def count_reasons(reasons: Mapping[str, str] | Sequence[str]) -> dict[str, int]:
    """Count equal texts, the most frequent first."""
    texts = reasons.values() if isinstance(reasons, Mapping) else reasons
    return dict(Counter(texts).most_common())


def requests_of(pod: Pod, resource: str) -> dict[str, int]:
    """Return how many GPUs each container of the pod asks for."""
    return {
        container.name: int((container.resources.limits or {}).get(resource, 0))
        if container.resources
        else 0
        for container in pod.spec.containers
    }


def refusal_of(pod: Pod) -> str:
    """Return why the pod has no node, as its PodScheduled condition says."""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.message or condition.reason or ""
    return "not tried yet"


def split_honoured(verdict: Verdict, pods: Mapping[str, Pod]) -> tuple[int, int]:
    """Return how many running and how many completed pods are honoured."""
    phases = Counter(pods[uid].status.phase for uid in verdict.honoured if uid in pods)
    return phases["Running"], phases["Succeeded"]


def list_doubles(verdict: Verdict) -> tuple[str, ...]:
    """Say each double allocation in a line."""
    return tuple(
        f"{double.node} {double.uuid}: {double.containers[0]} and {double.containers[1]}"
        for double in verdict.double_allocated
    )
