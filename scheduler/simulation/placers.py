"""Who places tasks: a policy that rates a trace's own arrays, or the live engine with a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray
from scheduler.engine.cycle import schedule
from scheduler.engine.framework import Framework
from scheduler.engine.profiles import Profile
from scheduler.engine.request import PodRequest
from scheduler.simulation.boards import Boards
from scheduler.simulation.classes import pod_request
from scheduler.simulation.cluster import Cluster, View
from scheduler.simulation.fleet import Fleet
from scheduler.simulation.policies.framework import (
    Policy,
    Rating,
    Ties,
    idle_devices,
    tightest,
)
from topology.gpuset import EMPTY, GpuSet, gpuset
from traces.openb import WHOLE_GPU_MILLI, Node, TaskClass

NOWHERE = -1
"""The row of a task that no node could take."""


class Placement(msgspec.Struct, frozen=True):
    """Which node by its row, and which of its GPUs.

    `bus_bandwidth_gbs` is the predicted bandwidth of a set of two GPUs or more.
    """

    row: int
    members: GpuSet
    bus_bandwidth_gbs: float = 0.0


class Placer(Protocol):
    """Places tasks on a cluster, and takes them off again."""

    def place(self, task: TaskClass) -> Placement | None:
        """Place a task; returns None, with nothing changed, if no node can take it."""

    def give_back(self, placement: Placement, task: TaskClass) -> None:
        """Take a task off."""


class _Ratings:
    """The ratings of one task class for all nodes, brought up to date for the nodes that changed.

    A node changes by one placement, a class comes again after some: only the rows touched in
    between are rated anew. Rows that cannot take the class stand at minus infinity.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.scores: FloatArray = np.full(len(cluster), -np.inf)
        self.devices: IntArray = np.zeros(len(cluster), np.int64)
        self.upto = 0

    def refresh(self, cluster: Cluster, policy: Policy, task: TaskClass, rows: IntArray) -> None:
        view = View(cluster, rows)
        fits = view.feasible(task)
        if not fits.all():
            self.scores[rows] = -np.inf
            rows = rows[fits]
            view = View(cluster, rows)
        if not len(rows):
            return
        rating: Rating = policy.rate(view, task)
        self.scores[rows] = rating.scores
        if task.shares:
            devices = rating.devices
            self.devices[rows] = (
                tightest(view.share, task.share_milli) if devices is None else devices
            )


class RatingPlacer:
    """A policy over the trace's arrays; inside the node the lowest idle GPUs, as published.

    Where nodes have links, whole GPUs are what the reference device plugin would prefer.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[Node],
        boards: Boards,
        policy: Policy,
        dice: np.random.Generator,
    ) -> None:
        self._cluster = cluster
        self._hardware = [boards.hardware(node) for node in nodes] if boards.linked else []
        self._boards = boards
        self._policy = policy
        self._dice = dice
        self._known: dict[TaskClass, _Ratings] = {}
        self._touched: list[int] = []
        self._everywhere = np.arange(len(cluster))

    def place(self, task: TaskClass) -> Placement | None:
        """Place a task on the node with the best rating."""
        cluster, policy = self._cluster, self._policy
        ratings = self._known.get(task)
        if ratings is None:
            ratings = self._known[task] = _Ratings(cluster)
            ratings.refresh(cluster, policy, task, self._everywhere)
        elif ratings.upto < len(self._touched):
            changed = np.array(sorted(set(self._touched[ratings.upto :])), np.int64)
            ratings.refresh(cluster, policy, task, changed)
        ratings.upto = len(self._touched)
        row = pick(ratings.scores, policy.ties, cluster.rank, self._dice)
        if row == NOWHERE:
            return None
        placement = self._choose(row, task, int(ratings.devices[row]))
        cluster.place(row, task, placement.members)
        self._touched.append(row)
        return placement

    def give_back(self, placement: Placement, task: TaskClass) -> None:
        """Take a task off."""
        self._cluster.give_back(placement.row, task, placement.members)
        self._touched.append(placement.row)

    def _choose(self, row: int, task: TaskClass, rated: int) -> Placement:
        if not task.gpus:
            return Placement(row, EMPTY)
        share = self._cluster.share[row]
        if task.shares:
            if self._policy.random_devices:
                fitting = np.flatnonzero(share >= task.share_milli)
                rated = int(fitting[self._dice.integers(len(fitting))])
            return Placement(row, gpuset([rated]))
        hardware = self._hardware[row] if self._hardware else None
        if hardware is None:
            return Placement(row, gpuset(idle_devices(share.tolist(), task.gpus)))
        idle = gpuset(np.flatnonzero(share == WHOLE_GPU_MILLI).tolist())
        members = self._boards.reference_set(hardware, idle, task.gpus)
        if members.bit_count() != task.gpus:
            # The reference may name fewer than asked for; kubelet then fills up from the lowest.
            rest = idle_devices(share.tolist(), len(share))
            missing = [at for at in rest if not members >> at & 1]
            members = gpuset([*_members(members), *missing[: task.gpus - members.bit_count()]])
        return Placement(row, members, self._boards.bandwidth(hardware, members))


def _members(members: GpuSet) -> list[int]:
    return [at for at in range(members.bit_length()) if members >> at & 1]


def pick(scores: FloatArray, ties: Ties, rank: IntArray, dice: np.random.Generator) -> int:
    """Return the row with the highest score, NOWHERE if all stand at minus infinity."""
    first = int(scores.argmax())
    best = scores[first]
    if best == -np.inf:
        return NOWHERE
    if ties is Ties.FIRST:
        return first
    among = np.flatnonzero(scores == best)
    if ties is Ties.RANDOM:
        return int(among[dice.integers(len(among))])
    return int(among[rank[among].argmin()])


class EnginePlacer:
    """The live engine under a profile. Ties go to the lowest name: no order of nodes counts."""

    def __init__(
        self, cluster: Cluster, fleet: Fleet, framework: Framework, profile: Profile
    ) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._framework = framework
        self._profile = framework.check(profile)
        self._rows = {name: row for row, name in enumerate(fleet.names)}
        self._view = fleet.state.view(fleet.names)
        self._requests: dict[TaskClass, PodRequest] = {}

    def place(self, task: TaskClass) -> Placement | None:
        """Ask the engine, as filter and bind do, and put the task where it says."""
        request = self._requests.get(task)
        if request is None:
            request = self._requests[task] = pod_request(task)
        self._fleet.state.outlook.observe(request)
        decision = schedule(
            self._framework,
            self._view,
            request,
            self._profile,
            at=0.0,
            shortlist=1,
            vetted=False,
        )
        chosen = decision.chosen
        if chosen is None:
            return None
        row = self._rows[chosen.node]
        members = chosen.choice.members
        self._fleet.take(row, task, members)
        self._cluster.place(row, task, members)
        return Placement(row, members, chosen.choice.bus_bandwidth_gbs)

    def give_back(self, placement: Placement, task: TaskClass) -> None:
        """Take a task off."""
        self._fleet.give_back(placement.row, task, placement.members)
        self._cluster.give_back(placement.row, task, placement.members)
