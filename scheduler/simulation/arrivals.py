"""The order in which tasks arrive: sorted by name, shuffled, tuned to a load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.simulation.errors import ReplayError
from traces.openb import Task, TaskClass


def order_arrivals(
    tasks: Sequence[Task], target_milli: float, dice: np.random.Generator
) -> list[TaskClass]:
    """Return the classes of the tasks that arrive, in order, asking for `target_milli` in all.

    A list that asks for less is followed by uniform draws from it, with replacement, until the
    next would exceed the target; from one that asks for more, random tasks are left out. Raises
    ReplayError if no task asks for a GPU: the target would never be reached.
    """
    by_name = sorted(tasks, key=lambda task: task.name)
    kinds = [by_name[at].kind for at in dice.permutation(len(by_name))]
    total = sum(kind.gpu_milli for kind in kinds)
    if not total:
        raise ReplayError("no task of the list asks for a GPU")
    if total > target_milli:
        return _leave_out(kinds, total - target_milli, dice)
    while True:
        for at in dice.integers(len(by_name), size=1024):
            kind = by_name[at].kind
            total += kind.gpu_milli
            if total > target_milli:
                return kinds
            kinds.append(kind)


def _leave_out(
    kinds: Sequence[TaskClass], excess_milli: float, dice: np.random.Generator
) -> list[TaskClass]:
    gone = set()
    for at in dice.permutation(len(kinds)).tolist():
        if excess_milli <= 0:
            break
        gone.add(at)
        excess_milli -= kinds[at].gpu_milli
    return [kind for at, kind in enumerate(kinds) if at not in gone]
