"""What the cases of the scheduler have in common: submit, wait, and the three things that hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tests.contract.cluster import MACHINES, Cluster, PodPlan, Sets
from tests.waiting import wait_until

PATIENCE: Final = 30.0
"""Seconds for what a queue, a back-off and a new leader may stand in the way of."""


def pods(
    name: str, gpus: int, *, count: int, notes: Mapping[str, str] = {}, priority: int = 0
) -> list[PodPlan]:
    """Return pods of one container, called `name`-0 and so on."""
    return [
        PodPlan(f"{name}-{number}", {"main": gpus}, notes=dict(notes), priority=priority)
        for number in range(count)
    ]


def submit(cluster: Cluster, plans: Iterable[PodPlan]) -> None:
    """Create pods one right after the other."""
    for plan in plans:
        cluster.submit(plan)


def bound(cluster: Cluster, plan: PodPlan) -> str:
    """Wait until a pod is bound; return the node."""
    wait_until(lambda: cluster.node_of(plan.name), PATIENCE, f"{plan.name} to be bound")
    return str(cluster.node_of(plan.name))


def all_run(cluster: Cluster, plans: Iterable[PodPlan]) -> None:
    """Wait until all of these pods run."""
    for plan in plans:
        try:
            wait_until(
                lambda plan=plan: cluster.phase(plan.name)[0] == "Running",  # type: ignore[misc]  # a default binds the loop's value
                PATIENCE,
                f"{plan.name} to run",
            )
        except AssertionError as error:
            error.add_note(f"{cluster.phase(plan.name)} {cluster.verdict(plan.name)}")
            raise


def refused(cluster: Cluster, plan: PodPlan, text: str) -> None:
    """Wait until kube-scheduler says that it found no node, for a reason that holds this text."""

    def told() -> bool:
        reason, message = cluster.verdict(plan.name)
        return reason == "Unschedulable" and text in message

    try:
        wait_until(told, PATIENCE, f"{plan.name} to be refused: {text}")
    except AssertionError as error:
        error.add_note(f"{cluster.phase(plan.name)} {cluster.verdict(plan.name)}")
        raise


def check_exact(cluster: Cluster, plans: Iterable[PodPlan]) -> None:
    """Check that each of these pods runs on one node with the set that its annotation names."""
    plans = list(plans)
    all_run(cluster, plans)
    seen = settled(cluster)
    for plan in plans:
        sets = cluster.set_of(plan.name)
        assert sets is not None
        counts = {name: len(gpus) for name, gpus in sets.items()}
        assert counts == {**plan.gpus, **plan.init}, f"{plan.name}: {counts}"
        wanted = {name: sets[name] for name in plan.gpus}
        got = {name: seen[plan.name][name] for name in plan.gpus}
        assert got == wanted, f"{plan.name} sees {got} instead of {wanted}"
        nodes = {gpu.partition("/")[0] for gpus in sets.values() for gpu in gpus}
        assert nodes == {cluster.node_of(plan.name)}


def settled(cluster: Cluster) -> Mapping[str, Sets]:
    """Wait until the nodes' states say what runs; return what each running container sees.

    No GPU may be in two of them.
    """

    def published() -> Mapping[str, frozenset[str]]:
        return {uid: gpus for node in MACHINES for uid, gpus in cluster.held(node).items()}

    def wanted() -> Mapping[str, frozenset[str]]:
        return {
            cluster.uid(name): frozenset().union(*sets.values())
            for name, sets in cluster.running().items()
            if any(sets.values())
        }

    wait_until(lambda: published() == wanted(), PATIENCE, "the states to say what runs")
    seen = cluster.running()
    given = [gpu for sets in seen.values() for gpus in sets.values() for gpu in gpus]
    assert sorted(given) == sorted(set(given)), f"a GPU is in two containers: {seen}"
    return seen
