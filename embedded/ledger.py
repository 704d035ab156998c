"""Whether every container saw exactly its GPUs, and none was given twice. Pure.

What counts is what a container saw in its environment, against what its pod's annotation says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

import msgspec

from topology.errors import WireError
from topology.wire import ASSIGNMENT_KEY, decode_assignment


class ContainerLife(msgspec.Struct, frozen=True):
    """One container that was started: where, for whom, what it saw, from when to when.

    `requested` is the number of GPUs that its pod asks for it. Times are seconds of one clock;
    `ended` is None while it runs.
    """

    node: str
    pod: str
    uid: str
    container: str
    requested: int
    gpus: frozenset[str]
    started: float
    ended: float | None = None


class TakenGpu(msgspec.Struct, frozen=True):
    """A GPU that an injected fault took away, in seconds of the same clock.

    `until` is when it could be given out again, None if that was not seen.
    """

    node: str
    uuid: str
    since: float
    until: float | None = None

    def explains(self, node: str, wanted: tuple[str, ...], started: float) -> bool:
        """Tell whether a container that started then could not get what was wanted."""
        gone = self.since <= started and (self.until is None or started <= self.until)
        return gone and self.node == node and self.uuid in wanted


class Mismatch(msgspec.Struct, frozen=True):
    """A container that saw other GPUs than its pod's annotation names, and why."""

    node: str
    pod: str
    container: str
    wanted: tuple[str, ...]
    seen: tuple[str, ...]
    why: str


class DoubleAllocation(msgspec.Struct, frozen=True):
    """One GPU that two containers saw at one time."""

    node: str
    uuid: str
    containers: tuple[str, str]


class Verdict(msgspec.Struct, frozen=True):
    """What the books say of a run.

    `honoured` holds the UIDs of pods all of whose containers saw exactly their set. `drifted` are
    mismatches that an injected fault explains: the wanted set held a GPU that was gone by then.
    """

    honoured: frozenset[str]
    mismatched: tuple[Mismatch, ...]
    drifted: tuple[Mismatch, ...]
    double_allocated: tuple[DoubleAllocation, ...]


def check_lives(
    lives: Iterable[ContainerLife],
    annotations: Mapping[str, str | None],
    taken: Iterable[TakenGpu] = (),
) -> Verdict:
    """Judge every container that ever started.

    `annotations` maps pod UIDs to the text of ``gputopo.dev/gpus``. A container that asks for no
    GPU must see none, whatever the annotation says.
    """
    every = tuple(lives)
    gone = tuple(taken)
    mismatched: list[Mismatch] = []
    drifted: list[Mismatch] = []
    wrong: set[str] = set()
    for life in every:
        mismatch = _compare(life, annotations.get(life.uid))
        if mismatch is None:
            continue
        wrong.add(life.uid)
        explained = any(gpu.explains(life.node, mismatch.wanted, life.started) for gpu in gone)
        (drifted if explained else mismatched).append(mismatch)
    return Verdict(
        honoured=frozenset(life.uid for life in every) - wrong,
        mismatched=tuple(mismatched),
        drifted=tuple(drifted),
        double_allocated=_find_doubles(every),
    )


def _compare(life: ContainerLife, annotation: str | None) -> Mismatch | None:
    """Return how the container's GPUs differ from its pod's annotation, None if they do not."""
    wanted: frozenset[str] = frozenset()
    why = "the container saw another set"
    if life.requested and annotation is None:
        why = f"the pod has no annotation {ASSIGNMENT_KEY}"
    elif life.requested:
        try:
            wanted = frozenset(decode_assignment(annotation or "").containers[life.container])
        except WireError as error:
            why = f"the annotation is unreadable: {error}"
        except KeyError:
            why = "the annotation does not name the container"
    if wanted == life.gpus and len(wanted) == life.requested:
        return None
    if wanted and len(wanted) != life.requested:
        why = f"the annotation names {len(wanted)} GPUs where {life.requested} are requested"
    return Mismatch(
        node=life.node,
        pod=life.pod,
        container=life.container,
        wanted=tuple(sorted(wanted)),
        seen=tuple(sorted(life.gpus)),
        why=why,
    )


def _find_doubles(lives: Iterable[ContainerLife]) -> tuple[DoubleAllocation, ...]:
    """Return each case of a container that started on a GPU which another had not yet left."""
    holders: dict[tuple[str, str], list[ContainerLife]] = {}
    doubles: list[DoubleAllocation] = []
    for life in sorted(lives, key=attrgetter("started", "pod", "container")):
        for uuid in sorted(life.gpus):
            still = [
                other
                for other in holders.get((life.node, uuid), ())
                if other.ended is None or other.ended > life.started
            ]
            doubles.extend(
                DoubleAllocation(life.node, uuid, (_name(other), _name(life))) for other in still
            )
            holders[life.node, uuid] = [*still, life]
    return tuple(doubles)


def _name(life: ContainerLife) -> str:
    return f"{life.pod}/{life.container}"
