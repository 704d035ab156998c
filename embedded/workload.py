"""The pods that a demo runs: what each asks for, as a value and as a manifest. Pure.

`synthetic_pods` makes a seeded mix; `embedded.trace` reads a real list.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from embedded.annotations import RUN_SECONDS_KEY
from topology.wire import GPU_MODEL_KEY, MIN_LINK_KEY, PROFILE_KEY

NAMESPACE: Final = "default"
SCHEDULER_NAME: Final = "gputopo"
RESOURCE: Final = "nvidia.com/gpu"

# The mix of openb's whole-GPU pods is nearly all single GPUs; this one shows more of the choosing.
_SIZES: Final = (0, 1, 2, 4, 8)
_WEIGHTS: Final = (10, 38, 26, 17, 9)
_PROFILES: Final = ("training", "inference", "pack", "spread")


class ContainerPlan(msgspec.Struct, frozen=True):
    """A container: how many GPUs, how much CPU (1/1000 core) and memory (MiB) it asks for."""

    name: str
    gpus: int
    cpu_milli: int
    memory_mib: int


class PodPlan(msgspec.Struct, frozen=True):
    """A pod to create. `run_seconds` is None for one that runs for ever."""

    name: str
    containers: tuple[ContainerPlan, ...]
    annotations: dict[str, str] = {}
    run_seconds: float | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs all its containers ask for."""
        return sum(container.gpus for container in self.containers)


class MachineFacts(msgspec.Struct, frozen=True):
    """What the pods' demands may rely on: a machine's GPU model and count.

    `linked` is the size of a set that is known to be fully linked by NVLink, 0 if there is none.
    """

    model: str
    gpus: int
    linked: int = 0


def render_pod(plan: PodPlan, resource: str = RESOURCE) -> dict[str, Any]:
    """Return the pod's manifest as the API server takes it."""
    annotations = dict(plan.annotations)
    if plan.run_seconds is not None:
        annotations[RUN_SECONDS_KEY] = f"{plan.run_seconds:.3f}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.name,
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "gputopo-demo"},
            "annotations": annotations,
        },
        "spec": {
            "schedulerName": SCHEDULER_NAME,
            "restartPolicy": "Never",
            "containers": [_render_container(each, resource) for each in plan.containers],
        },
    }


def _render_container(plan: ContainerPlan, resource: str) -> dict[str, Any]:
    amounts = {"cpu": f"{plan.cpu_milli}m", "memory": f"{plan.memory_mib}Mi"}
    if plan.gpus:
        amounts[resource] = str(plan.gpus)
    return {
        "name": plan.name,
        "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": amounts, "limits": amounts},
    }


def synthetic_pods(count: int, seed: int, machines: Sequence[MachineFacts]) -> list[PodPlan]:
    """Return `count` pods that run for ever; the same seed gives the same pods.

    Sizes are 1, 2, 4 and 8 GPUs, some pods ask for none, some split theirs over two containers and
    some state demands. Each fits at least one of the machines while that is empty.
    """
    dice = random.Random(seed)  # noqa: S311 -- a workload needs repetition, not secrecy
    largest = max((machine.gpus for machine in machines), default=0)
    sizes = [size for size in _SIZES if size <= largest]
    weights = _WEIGHTS[: len(sizes)]
    return [
        _draw_pod(f"pod-{number:03d}", dice.choices(sizes, weights)[0], dice, machines)
        for number in range(count)
    ]


def _draw_pod(
    name: str, gpus: int, dice: random.Random, machines: Sequence[MachineFacts]
) -> PodPlan:
    if gpus == 0:
        return PodPlan(name, (ContainerPlan("main", 0, dice.choice((500, 2000, 4000)), 4096),))
    split = [gpus]
    if gpus > 1 and dice.random() < 0.15:
        split = [gpus - gpus // 2, gpus // 2] if dice.random() < 0.5 else [gpus - 1, 1]
    containers = tuple(
        ContainerPlan("main" if place == 0 else "side", part, 1000 * part, 4096 * part)
        for place, part in enumerate(split)
    )
    return PodPlan(name, containers, _draw_demands(gpus, dice, machines))


def _draw_demands(
    gpus: int, dice: random.Random, machines: Sequence[MachineFacts]
) -> dict[str, str]:
    roll = dice.random()
    if roll < 0.08:
        machine = dice.choice([each for each in machines if each.gpus >= gpus])
        return {GPU_MODEL_KEY: machine.model}
    if roll < 0.16 and gpus > 1:
        linked = any(each.linked >= gpus for each in machines)
        return {MIN_LINK_KEY: "NV" if linked else "SYS"}
    if roll < 0.36:
        return {PROFILE_KEY: dice.choice(_PROFILES)}
    return {}
