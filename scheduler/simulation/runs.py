"""One run by its names and numbers: what a process of its own is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.simulation.arrivals import order_arrivals
from scheduler.simulation.boards import Boards, Machines
from scheduler.simulation.classes import target_workload
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.dynamic import (
    Departures,
    choose_nodes,
    keep_possible,
    make_stream,
    run_stream,
)
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.measures import Outcome, measure
from scheduler.simulation.policies.catalogue import Surroundings, make_placer
from scheduler.simulation.replay import replay
from traces.openb import Node, Task


def run_once(
    nodes: Sequence[Node],
    tasks: Sequence[Task],
    policy: str,
    *,
    seed: int,
    load: float,
    machines: Machines | None = None,
) -> Outcome:
    """Replay a list on an empty cluster until `load` times its GPUs are asked for.

    The seed decides the order of nodes, the order of tasks and the draws of the policy, so equal
    arguments give equal outcomes. Raises ReplayError if there is nothing to replay, or no such
    policy.
    """
    dice = np.random.default_rng(seed)
    by_name = sorted(nodes, key=lambda node: node.name)
    ordered = [by_name[at] for at in dice.permutation(len(by_name))]
    cluster = Cluster(ordered)
    if not cluster.gpu_milli:
        raise ReplayError("no node of the list has a GPU")
    arrivals = order_arrivals(tasks, load * cluster.gpu_milli, dice)
    kinds = [task.kind for task in tasks]
    workload = target_workload(kinds, cluster.models)
    around = Surroundings(ordered, kinds, workload, cluster, Boards(machines), dice)
    course = replay(cluster, arrivals, make_placer(policy, around))
    upto = round(100 * load)
    return measure(course, cluster, workload, upto, linked=machines is not None)


def run_departures(
    nodes: Sequence[Node],
    tasks: Sequence[Task],
    policy: str,
    *,
    seed: int,
    load: float,
    copies: int,
    machines: Machines | None = None,
) -> Departures:
    """Replay copies of a list by its times on a part of the nodes, whose mean load is `load`.

    The seed decides the part, the shifts of the copies and the draws of the policy. Raises
    ReplayError if there is nothing to replay, or no such policy.
    """
    dice = np.random.default_rng(seed)
    by_name = sorted(nodes, key=lambda node: node.name)
    ordered = [by_name[at] for at in dice.permutation(len(by_name))]
    stream = make_stream(sorted(tasks, key=lambda task: task.name), copies, dice)
    part = choose_nodes(ordered, stream, load)
    cluster = Cluster(part)
    possible, impossible = keep_possible(stream, cluster)
    kinds = [task.kind for task in tasks]
    workload = target_workload(kinds, cluster.models)
    around = Surroundings(part, kinds, workload, cluster, Boards(machines), dice)
    placer = make_placer(policy, around)
    return run_stream(cluster, possible, placer, impossible=impossible, linked=machines is not None)
