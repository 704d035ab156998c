"""The workload that is expected: classes of pods and how often each comes, given or learned.

Where it is learned, each pod that is seen counts, and counts half once so many others came after
it. The classes are prepared for use again from time to time only: `version` tells when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, Protocol

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.columns import Kind
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from topology.tables import Mix

TARGET_COVERAGE: Final = 0.95
"""The most frequent classes are taken until they cover this part of the pods, as FGD does."""

HALF_LIFE: Final = 20_000.0
"""A pod counts half after so many others."""

MOST_BETWEEN: Final = 2_000
"""The classes are prepared anew after a quarter more pods, at the latest after these."""


class PodClass(msgspec.Struct, frozen=True, cache_hash=True):
    """What pods of one class ask for: CPU in thousandths of a core, GPUs, and which will do.

    `share_milli` is asked of each GPU, 0 without GPUs. `models` are patterns as in Demand.
    """

    cpu_milli: int
    gpus: int
    share_milli: int
    models: tuple[str, ...] = ()
    gpu_memory_mib: int = 0

    @property
    def gpu_milli(self) -> int:
        """The GPU thousandths asked for in all."""
        return self.gpus * self.share_milli

    @property
    def bound(self) -> bool:
        """Whether some GPUs will not do."""
        return bool(self.models or self.gpu_memory_mib)

    def takes(self, kind: Kind) -> bool:
        """Return whether a node with these GPUs has any that will do."""
        return any(
            memory >= self.gpu_memory_mib
            and (
                not self.models
                or any(fnmatchcase(model.lower(), pattern.lower()) for pattern in self.models)
            )
            for model, memory in kind
        )


def class_of(request: PodRequest) -> PodClass:
    """Return a pod's class."""
    demand = request.demand
    return PodClass(
        cpu_milli=request.asks.cpu_milli,
        gpus=demand.count,
        share_milli=demand.share_milli if demand.count else 0,
        models=demand.models,
        gpu_memory_mib=demand.memory_mib,
    )


PodMix = Mapping[PodClass, float]
"""Weights of classes."""


def count_classes(classes: Iterable[PodClass]) -> dict[PodClass, float]:
    """Count pods by class."""
    counts: dict[PodClass, float] = {}
    for one in classes:
        counts[one] = counts.get(one, 0.0) + 1.0
    return counts


def trim_mix(counts: PodMix, coverage: float = TARGET_COVERAGE) -> dict[PodClass, float]:
    """Return the heaviest classes until they cover that part of the counts, scaled to 1."""
    total = sum(counts.values())
    kept: dict[PodClass, float] = {}
    covered = 0.0
    # Equal counts in the order of their contents, so that the mix depends on the pods alone.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], msgspec.structs.astuple(item[0])))
    for one, count in ordered:
        if covered >= coverage * total:
            break
        kept[one] = float(count)
        covered += count
    return {one: count / covered for one, count in kept.items()}


class Forecast(msgspec.Struct, frozen=True):
    """The workload that nodes are judged against: where from, after how many pods, and what.

    `classes` are the most frequent ones with their parts of the whole, which add up to 1.
    """

    source: str = ""
    seen: float = 0.0
    classes: tuple[tuple[PodClass, float], ...] = ()


class Expected(Protocol):
    """The classes that are expected, with counts in any unit; `version` grows as they change."""

    source: str
    version: int
    seen: float

    def counts(self) -> PodMix:
        """Return the counts by class."""

    def observe(self, pod: PodClass) -> None:
        """Take note of a pod that was seen for the first time."""


class GivenWorkload:
    """Classes that are known beforehand. `seen` is how many pods they stand for, if not these."""

    def __init__(self, counts: PodMix, *, source: str = "given", seen: float | None = None) -> None:
        self.source = source
        self.version = 1
        self._counts = dict(counts)
        self.seen = sum(self._counts.values()) if seen is None else seen

    def counts(self) -> PodMix:
        """Return what was given."""
        return self._counts

    def observe(self, pod: PodClass) -> None:
        """Learn nothing."""


class LearnedWorkload:
    """Classes of the pods that were seen, old ones fading."""

    source = "learned"

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self.version = 0
        self.seen = 0.0
        self._half_life = half_life
        self._counts: dict[PodClass, float] = {}
        self._shown: dict[PodClass, float] = {}
        self._weight = 1.0
        self._due = 1.0

    def counts(self) -> PodMix:
        """Return the counts as they were when the version last grew."""
        return self._shown

    def observe(self, pod: PodClass) -> None:
        """Count a pod. New ones grow instead of old ones fading: one number changes, not all."""
        self._counts[pod] = self._counts.get(pod, 0.0) + self._weight
        self._weight *= 2 ** (1 / self._half_life)
        self.seen += 1
        if self.seen < self._due:
            return
        self._due = self.seen + min(1 + self.seen // 4, MOST_BETWEEN)
        total = sum(self._counts.values())
        # Fades below a millionth are forgotten, and the weights start from 1 again.
        self._counts = {
            known: count / self._weight
            for known, count in self._counts.items()
            if count > total * 1e-6
        }
        self._weight = 1.0
        self._shown = dict(self._counts)
        self.version += 1


def size_mix(counts: PodMix) -> Mix | None:
    """Return how the sizes of whole-GPU requests share the GPUs, as the link tables count them.

    In hundredths, so that what hardly changed is equal; None if no class asks for whole GPUs.
    """
    gpus: dict[int, float] = {}
    for one, weight in counts.items():
        if one.gpus and one.share_milli == WHOLE_GPU_MILLI:
            gpus[one.gpus] = gpus.get(one.gpus, 0.0) + weight * one.gpus
    total = sum(gpus.values())
    parts = {size: round(given / total, 2) for size, given in sorted(gpus.items())}
    shares = tuple((size, part) for size, part in parts.items() if part)
    return Mix(shares) if shares else None


def mix_distance(one: Mix, other: Mix) -> float:
    """Return which part of the GPUs, 0 to 1, two mixes give to other sizes."""
    first, second = dict(one.shares), dict(other.shares)
    whole, of = sum(first.values()), sum(second.values())
    sizes = first.keys() | second.keys()
    return sum(abs(first.get(k, 0) / whole - second.get(k, 0) / of) for k in sizes) / 2


class MachineGroup(msgspec.Struct, frozen=True):
    """Nodes that are alike when they are empty: their GPUs, and how much CPU they have."""

    kind: Kind
    gpus: int
    cpu_milli: int

    def hosts(self, pod: PodClass) -> bool:
        """Return whether an empty node can take a pod of this class."""
        fits = self.gpus >= pod.gpus and self.cpu_milli >= pod.cpu_milli
        return fits and pod.takes(self.kind)


def machine_pressure(
    mix: PodMix, groups: Sequence[MachineGroup], supply_milli: FloatArray
) -> FloatArray:
    """Return, by group, the part of its GPUs that pods bound to models would take.

    It is worked out for a demand as large as the cluster: each pod that names models asks for its
    GPUs from all machines alike that have them, and can take it when they are empty. 0 everywhere
    when no pod names one.
    """
    pressure = np.zeros(len(groups))
    total = sum(weight * one.gpu_milli for one, weight in mix.items())
    for one, weight in mix.items():
        if not one.bound or not one.gpu_milli:
            continue
        able = np.array([group.hosts(one) for group in groups], np.bool_)
        offered = supply_milli[able].sum()
        if offered:
            pressure[able] += weight * one.gpu_milli / total * supply_milli.sum() / offered
    return pressure
