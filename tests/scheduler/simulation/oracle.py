"""The policies' formulas in plain Python, one node at a time, slow and without arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from scheduler.engine.plugins.balance import FREE_CPU, STRANDED, STRANDING
from scheduler.engine.plugins.fragmentation import LIMIT
from scheduler.engine.plugins.model_fit import PRESSURE
from scheduler.engine.workload import PodClass
from traces.openb import TaskClass


class State(msgspec.Struct, frozen=True):
    """What a node has, and what of it is free; `groups` counts pods by GPU count, shares as 0."""

    cpu: int
    memory: int
    shares: tuple[int, ...]
    model: str
    cpu_capacity: int
    memory_capacity: int
    groups: dict[int, int]


def waste(state: State, mix: Mapping[PodClass, float]) -> float:
    """Return F: the idle GPU that is of no use, weighted by class."""
    total = 0.0
    for demand, weight in mix.items():
        fitting = [free for free in state.shares if free >= demand.share_milli]
        hosts = (
            state.cpu >= demand.cpu_milli
            and len(fitting) >= demand.gpus
            and (not demand.models or state.model in demand.models)
        )
        if demand.gpus and hosts:
            lost = sum(free for free in state.shares if free < demand.share_milli)
        else:
            lost = sum(state.shares)
        total += weight * lost
    return total


def place(state: State, task: TaskClass, device: int) -> State:
    """Return the node after a placement; `device` counts for shares only."""
    shares = list(state.shares)
    if task.shares:
        shares[device] -= task.share_milli
    else:
        idle = [at for at, free in enumerate(shares) if free == 1000]
        for at in idle[: task.gpus]:
            shares[at] = 0
    return msgspec.structs.replace(state, cpu=state.cpu - task.cpu_milli, shares=tuple(shares))


def devices(state: State, task: TaskClass) -> list[int]:
    """Return the GPUs that a share may be taken from; one that means nothing for other tasks."""
    if not task.shares:
        return [0]
    return [at for at, free in enumerate(state.shares) if free >= task.share_milli]


def gains(state: State, task: TaskClass, mix: Mapping[PodClass, float]) -> dict[int, float]:
    """Tell by how much each choice of a GPU lessens the waste."""
    before = waste(state, mix)
    return {
        device: before - waste(place(state, task, device), mix) for device in devices(state, task)
    }


def fgd(state: State, task: TaskClass, mix: Mapping[PodClass, float]) -> dict[int, float]:
    """Return the sigmoid of the gain in points by GPU, not yet cut to whole ones."""
    return {
        device: 100 / (1 + math.exp(-gain / 1000))
        for device, gain in gains(state, task, mix).items()
    }


def dotprod(state: State, task: TaskClass) -> float:
    """Not yet cut to a whole number, as all of these."""
    cpu = state.cpu * task.cpu_milli / 128_000**2
    gpu = sum(state.shares) * task.gpus * task.share_milli / 8_000**2
    return 100 * (1 - (cpu + gpu) / 2)


def bestfit(state: State, task: TaskClass) -> float:
    """Rate what is left, against the largest node."""
    after = place(state, task, devices(state, task)[0])
    return 100 * (1 - (after.cpu / 128_000 + sum(after.shares) / 8_000) / 2)


def clustering(state: State, task: TaskClass) -> float:
    """Rate company first, then least free GPU."""
    if not task.gpus:
        return 0
    mine = state.groups.get(0 if task.shares else task.gpus, 0)
    everyone = sum(state.groups.values())
    base = 0 if everyone else 25
    if mine:
        base = 75 if mine == everyone else 50
    return base + 25 * (8_000 - sum(state.shares)) / 8_000


def packing(state: State, task: TaskClass) -> float:
    """Rate a GPU in use, a node in use, an idle node."""
    if not task.gpus:
        return 0
    partly = [free for free in state.shares if free < 1000]
    idle = len(state.shares) - len(partly)
    if task.shares and any(free >= task.share_milli for free in partly):
        return max(50, 100 - math.floor(sum(free / 10 for free in partly) / 10 + 1e-9))
    if partly:
        return max(33, 50 - idle)
    return 33 - len(state.shares)


def kube(state: State, task: TaskClass) -> float:
    """LeastAllocated and BalancedAllocation; whole numbers on the way."""
    cpu = (state.cpu - task.cpu_milli) / state.cpu_capacity
    memory = (state.memory - task.memory_mib) / state.memory_capacity
    least = (math.floor(100 * cpu + 1e-9) + math.floor(100 * memory + 1e-9)) // 2
    mean = (cpu + memory) / 2
    deviation = math.sqrt(((cpu - mean) ** 2 + (memory - mean) ** 2) / 2)
    return least + math.floor(100 * (1 - deviation) + 1e-9)


def gputopo(
    state: State, task: TaskClass, mix: Mapping[PodClass, float], pressure: float
) -> dict[int, float]:
    """Our score by GPU: fragmentation, balance and model fit, 1 to 1."""

    def stranded(one: State) -> float:
        gpu = sum(one.shares) / (1000 * len(one.shares)) if one.shares else 0
        return max(gpu - one.cpu / one.cpu_capacity, 0)

    answer = {}
    for device, gain in gains(state, task, mix).items():
        after = place(state, task, device)
        score = LIMIT * math.tanh(gain / LIMIT)
        score -= FREE_CPU * after.cpu / after.cpu_capacity
        score -= STRANDED * stranded(after)
        if task.gpus:
            score -= STRANDING * len(state.shares) * (stranded(after) - stranded(state))
        score -= PRESSURE * pressure * task.gpus * task.share_milli / 1000
        answer[device] = score
    return answer
