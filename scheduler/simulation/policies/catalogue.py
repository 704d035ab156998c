"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from scheduler.simulation.cluster import Cluster
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.policies.fgd import Fgd
from scheduler.simulation.policies.framework import Policy
from scheduler.simulation.policies.gputopo import LearningGputopo, given, supply_of
from scheduler.simulation.policies.published import (
    BestFit,
    Clustering,
    DotProduct,
    Packing,
    Random,
)
from scheduler.simulation.policies.stock import StockScheduler
from scheduler.simulation.trace import TaskClass
from scheduler.simulation.workload import Workload


class Surroundings(msgspec.Struct, frozen=True):
    """What a policy may know before the first task arrives."""

    tasks: Sequence[TaskClass]
    workload: Workload
    cluster: Cluster

    @property
    def supply_milli(self) -> list[int]:
        """The GPU thousandths of each model of the cluster."""
        return supply_of(self.cluster.models, self.cluster.model, self.cluster.gpus)


POLICIES: Final[dict[str, Callable[[Surroundings], Policy]]] = {
    "random": lambda _: Random(),
    "dotprod": lambda _: DotProduct(),
    "clustering": lambda _: Clustering(),
    "packing": lambda _: Packing(),
    "bestfit": lambda _: BestFit(),
    "fgd": lambda around: Fgd(around.workload),
    "kube": lambda _: StockScheduler(),
    "gputopo": lambda around: given(around.tasks, around.cluster.models, around.supply_milli),
    "gputopo-learned": lambda around: LearningGputopo(around.cluster.models, around.supply_milli),
}


def check_policies(names: Sequence[str]) -> Sequence[str]:
    """Return the names; raises ReplayError naming one that is unknown."""
    for name in names:
        if name not in POLICIES:
            raise ReplayError(f"no policy {name!r}; there are " + ", ".join(POLICIES))
    return names


def make_policy(name: str, around: Surroundings) -> Policy:
    """Make a policy for a run; raises ReplayError if there is none of this name."""
    check_policies([name])
    return POLICIES[name](around)
