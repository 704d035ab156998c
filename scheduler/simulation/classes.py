"""Tasks of a trace in the engine's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scheduler.engine.columns import Kind
from scheduler.engine.request import Amounts, ContainerRequest, Demand, PodRequest
from scheduler.engine.waste import Workload
from scheduler.engine.workload import PodClass, count_classes, trim_mix
from traces.openb import WHOLE_GPU_MILLI, TaskClass


def pod_class(task: TaskClass) -> PodClass:
    """Return a task's class as the measure of waste sees it: without its memory."""
    return PodClass(task.cpu_milli, task.gpus, task.share_milli, task.models)


def pod_request(task: TaskClass) -> PodRequest:
    """Return what the engine is asked for a task of this class."""
    return PodRequest(
        uid="",
        namespace="",
        name="",
        containers=(ContainerRequest("main", task.gpus),) if task.gpus else (),
        demand=Demand(
            count=task.gpus,
            models=task.models,
            share_milli=task.share_milli if task.shares else WHOLE_GPU_MILLI,
        ),
        asks=Amounts(task.cpu_milli, task.memory_mib),
    )


def kinds_of(models: Sequence[str]) -> list[Kind]:
    """Return the kinds of nodes that have GPUs of one of these models."""
    return [frozenset({(model, 0)}) for model in models]


def target_workload(tasks: Iterable[TaskClass], models: Sequence[str]) -> Workload:
    """Return the list's own mix, as FGD is given it, prepared for nodes of these models."""
    return Workload(trim_mix(count_classes(map(pod_class, tasks))), kinds_of(models))
