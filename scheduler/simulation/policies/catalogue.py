"""The policies by name: the published ones, and the live engine under each built-in profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE, Profile
from scheduler.engine.waste import Workload
from scheduler.engine.workload import Expected, GivenWorkload, LearnedWorkload, count_classes
from scheduler.simulation.boards import Boards
from scheduler.simulation.classes import pod_class
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.fleet import Fleet
from scheduler.simulation.placers import EnginePlacer, Placer, RatingPlacer
from scheduler.simulation.policies.fgd import Fgd
from scheduler.simulation.policies.framework import Policy
from scheduler.simulation.policies.published import (
    BestFit,
    Clustering,
    DotProduct,
    Packing,
    Random,
)
from scheduler.simulation.policies.stock import StockScheduler
from traces.openb import Node, TaskClass


class Surroundings(msgspec.Struct, frozen=True):
    """What a policy may know before the first task arrives, and the dice for its draws."""

    nodes: Sequence[Node]
    tasks: Sequence[TaskClass]
    workload: Workload
    cluster: Cluster
    boards: Boards
    dice: np.random.Generator


def _rate(make: Callable[[Workload], Policy]) -> Callable[[Surroundings], Placer]:
    def place(around: Surroundings) -> Placer:
        policy = make(around.workload)
        return RatingPlacer(around.cluster, around.nodes, around.boards, policy, around.dice)

    return place


def _run_engine(profile: Profile, *, learned: bool = False) -> Callable[[Surroundings], Placer]:
    def place(around: Surroundings) -> Placer:
        expected: Expected = (
            LearnedWorkload()
            if learned
            else GivenWorkload(count_classes(map(pod_class, around.tasks)))
        )
        fleet = Fleet(around.nodes, around.boards, expected)
        return EnginePlacer(around.cluster, fleet, built_in(), profile)

    return place


PUBLISHED: Final = ("random", "dotprod", "clustering", "packing", "bestfit", "fgd")

OURS: Final = "gputopo"
"""The extender's default profile, by the name of the whole."""

POLICIES: Final[dict[str, Callable[[Surroundings], Placer]]] = {
    "random": _rate(lambda _: Random()),
    "dotprod": _rate(lambda _: DotProduct()),
    "clustering": _rate(lambda _: Clustering()),
    "packing": _rate(lambda _: Packing()),
    "bestfit": _rate(lambda _: BestFit()),
    "fgd": _rate(Fgd),
    "kube": _rate(lambda _: StockScheduler()),
    OURS: _run_engine(BUILT_IN[DEFAULT_PROFILE]),
    f"{OURS}-learned": _run_engine(BUILT_IN[DEFAULT_PROFILE], learned=True),
    **{name: _run_engine(profile) for name, profile in BUILT_IN.items() if name != DEFAULT_PROFILE},
}

COMPARED: Final = (*PUBLISHED, "kube", OURS, f"{OURS}-learned")
"""What `--policy all` runs."""


def check_policies(names: Sequence[str]) -> Sequence[str]:
    """Return the names; raises ReplayError naming one that is unknown."""
    for name in names:
        if name not in POLICIES:
            raise ReplayError(f"no policy {name!r}; there are " + ", ".join(POLICIES))
    return names


def make_placer(name: str, around: Surroundings) -> Placer:
    """Make a policy's placer for a run; raises ReplayError if there is none of this name."""
    check_policies([name])
    return POLICIES[name](around)
