"""Reading a real pod list (the openb trace's CSV format) as pods for the embedded cluster.

Whole-GPU and CPU-only pods are taken in the order of the file; pods that ask for a share of a GPU
are left out and counted.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from embedded.errors import WorkloadError
from embedded.workload import ContainerPlan, PodPlan
from topology.wire import GPU_MODEL_KEY
from traces.errors import TraceError
from traces.openb import Task, read_tasks

_POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

# The trace's model codes, as they can be recognised in an NVML product name. G1 to G3 are
# undisclosed; V100M16 and V100M32 differ in memory only, which the product name tells.
_MODEL_PATTERNS: Final = {
    "P100": r"\bP100\b",
    "T4": r"\bT4\b",
    "A10": r"\bA10\b",
    "V100M16": r"\bV100\b.*\b16GB\b",
    "V100M32": r"\bV100\b.*\b32GB\b",
}
# Real pods live from seconds to months. The logarithm keeps their order, in seconds to watch.
_SHORTEST_LIFE: Final = 5.0
_LONGEST_LIFE: Final = 1.3e7


class Lifetimes(msgspec.Struct, frozen=True):
    """The range of seconds that the trace's lifetimes are compressed to."""

    shortest: float = 1.0
    longest: float = 8.0

    def compress(self, seconds: float) -> float:
        """Map a real life of 5 s to 5 months onto the range, by its logarithm.

        >>> [round(Lifetimes().compress(s), 1) for s in (0, 5, 8000, 1.3e7, 1e9)]
        [1.0, 1.0, 4.5, 8.0, 8.0]
        """
        span = math.log(_LONGEST_LIFE / _SHORTEST_LIFE)
        share = math.log(max(seconds, _SHORTEST_LIFE) / _SHORTEST_LIFE) / span
        return self.shortest + (self.longest - self.shortest) * min(share, 1.0)


class Trace(msgspec.Struct, frozen=True):
    """The pods of a list in its order, and how many rows were left out, by cause."""

    pods: tuple[PodPlan, ...]
    shared: int
    unknown_model: int


def read_trace(
    path: Path,
    models: Sequence[str],
    *,
    seed: int = 0,
    lifetimes: Lifetimes = Lifetimes(),  # noqa: B008 -- a frozen value
) -> Trace:
    """Read a pod list; raises WorkloadError naming the file, and the line and column at fault.

    `models` are the GPU product names there are: a pod whose ``gpu_spec`` allows only others is
    left out, and one that allows some of them asks for those. Where the list has no times,
    lifetimes are drawn with `seed`.
    """
    dice = random.Random(seed)  # noqa: S311 -- a workload needs repetition, not secrecy
    pods: list[PodPlan] = []
    shared = unknown_model = 0
    for task in _read_tasks(path):
        if not _POD_NAME.fullmatch(task.name):
            problem = f"{task.name[:40]!r} is not a pod name"
            raise WorkloadError(str(TraceError(str(path), task.line, "name", problem)))
        kind = task.kind
        plan = PodPlan(
            name=task.name,
            containers=(ContainerPlan("main", kind.gpus, kind.cpu_milli, kind.memory_mib),),
            run_seconds=round(lifetimes.compress(_life(task, dice)), 3),
        )
        if kind.shares:
            shared += 1
            continue
        if kind.models:
            product = _find_model(kind.models, models)
            if product is None:
                unknown_model += 1
                continue
            plan = msgspec.structs.replace(plan, annotations={GPU_MODEL_KEY: product})
        pods.append(plan)
    if not pods:
        raise WorkloadError(f"{path}: holds no pod that asks for whole GPUs or none")
    return Trace(tuple(pods), shared, unknown_model)


def _read_tasks(path: Path) -> tuple[Task, ...]:
    try:
        return read_tasks(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: not UTF-8 text ({error.reason})") from None
    except TraceError as error:
        raise WorkloadError(str(error)) from None


def _life(task: Task, dice: random.Random) -> float:
    """Return the seconds from creation to deletion, drawn evenly by logarithm where unknown."""
    if task.times is None:
        return math.exp(dice.uniform(math.log(_SHORTEST_LIFE), math.log(_LONGEST_LIFE)))
    return task.times.ended - task.times.created


def _find_model(codes: Sequence[str], models: Sequence[str]) -> str | None:
    """Return the first product among `models` that one of the codes allows.

    >>> _find_model(("T4", "V100M16"), ["NVIDIA L40S", "Tesla V100-SXM2-16GB"])
    'Tesla V100-SXM2-16GB'
    """
    for code in codes:
        pattern = _MODEL_PATTERNS.get(code)
        for model in models:
            if pattern is not None and re.search(pattern, model):
                return model
    return None
