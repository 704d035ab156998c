"""What a policy is: a rating of the nodes of a view for one task."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.simulation.cluster import View
from traces.openb import WHOLE_GPU_MILLI, TaskClass


class Ties(Enum):
    """Which of the nodes with the best score wins."""

    FIRST = "first"  # of the run's node permutation, as published
    RANDOM = "random"  # as stock kube-scheduler
    NAME = "name"  # the order of names: no luck in it


class Rating(msgspec.Struct, frozen=True):
    """Scores by row, higher is better, and for a task with a share the GPU it would get.

    `devices` None leaves the GPU to the tightest fit. What stands for rows that cannot take the
    task means nothing.
    """

    scores: FloatArray | IntArray
    devices: IntArray | None = None


class Policy(Protocol):
    """Rates nodes."""

    name: str
    ties: Ties
    random_devices: bool

    def rate(self, view: View, task: TaskClass) -> Rating:
        """Rate the rows of a view, which may or may not be able to take the task."""


class Steadfast:
    """A policy with the published ties and the tightest GPU."""

    ties = Ties.FIRST
    random_devices = False


def tightest(share: IntArray, wanted: int) -> IntArray:
    """Return, by row, the GPU with the least free share that is enough; the lowest on ties."""
    fitting = np.where(share >= wanted, share, WHOLE_GPU_MILLI + 1)
    answer: IntArray = fitting.argmin(axis=1)
    return answer


def idle_devices(share: Sequence[int], count: int) -> list[int]:
    """Return the `count` lowest GPUs of a node that nobody uses; fewer if there are not so many."""
    return [at for at, free in enumerate(share) if free == WHOLE_GPU_MILLI][:count]
