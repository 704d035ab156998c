"""What the contract's cases say again and again: the pods that they bind, and what has to hold.

After each case three things hold, whatever it was about: no GPU is in two running containers,
kubelet's books equal what the containers see, and the Node's state says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.contract.world import PodPlan, World
from tests.waiting import wait_until


def one(name: str, *gpus: int, strict: bool = False) -> PodPlan:
    """Return a pod of one container, bound with these GPUs."""
    return PodPlan(name, {"main": len(gpus)}, {"main": gpus}, strict=strict)


def unbound(name: str, count: int) -> PodPlan:
    """Return a pod that another scheduler has bound: it carries no set."""
    return PodPlan(name, {"main": count})


def bind_all(world: World, pods: Iterable[PodPlan]) -> None:
    """Bind pods one right after the other."""
    for pod in pods:
        world.bind(pod)


def sees(world: World, name: str, timeout: float = 10.0) -> dict[str, frozenset[int]]:
    """Wait until kubelet says that a pod runs; return the GPUs that each container sees."""
    wait_until(lambda: world.phase(name)[0] == "Running", timeout, f"{name} to run")
    return world.running()[name]


def settled(world: World) -> dict[str, dict[str, frozenset[int]]]:
    """Wait until the three things hold; return what each container sees."""
    where = {uuid: gpu for gpu, uuid in enumerate(world.uuids())}

    def published() -> Mapping[str, frozenset[int]]:
        state = world.state()
        allocations = state.allocations if state is not None else {}
        return {uid: frozenset(where[uuid] for uuid in got) for uid, got in allocations.items()}

    def wanted() -> Mapping[str, frozenset[int]]:
        return {
            world.uid(name): frozenset().union(*containers.values())
            for name, containers in world.held().items()
        }

    wait_until(lambda: published() == wanted(), what="the state to say what kubelet's books say")
    seen = world.running()
    assert world.held() == {
        name: {container: gpus for container, gpus in containers.items() if gpus}
        for name, containers in seen.items()
        if any(containers.values())
    }
    given = [gpu for containers in seen.values() for gpus in containers.values() for gpu in gpus]
    assert sorted(given) == sorted(set(given)), f"a GPU is in two containers: {seen}"
    return seen


def check_exact(world: World, pods: Iterable[PodPlan]) -> None:
    """Check that each of these pods runs and that each container sees the set it was bound with.

    Init containers have ended by then.
    """
    for pod in pods:
        assert pod.sets is not None
        got = sees(world, pod.name)
        stay = pod.sets.keys() - set(pod.inits)
        assert {name: set(pod.sets[name]) for name in stay} == {
            name: set(got[name]) for name in stay
        }
    settled(world)


def drift(world: World) -> float:
    """Return how many containers have drifted so far, for whatever reason."""
    return world.count("drift_total")
