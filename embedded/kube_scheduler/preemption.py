"""Which pods are evicted for one of higher priority: kube-scheduler's DefaultPreemption. Pure.

Only its own filters are asked, as in the real one: an extender without a preempt verb has no say.
So a node that they pass has no victim to offer, whatever the extender thinks of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from embedded.kube_scheduler.cache import NodeInfo
from runtime.objects import Pod

Fits = Callable[[NodeInfo], bool]
"""Whether kube-scheduler's own filters pass a node for the pod."""


class Eviction(msgspec.Struct, frozen=True):
    """The node where evicting `victims`, one at least, makes room."""

    node: str
    victims: tuple[Pod, ...]


def find_eviction(infos: Iterable[NodeInfo], pod: Pod, fits: Fits) -> Eviction | None:
    """Return the eviction that hurts least, None if none helps or the pod may not preempt.

    The node whose most important victim is least important wins, then the least sum of
    priorities, then the fewest victims, then the one whose most important victim is youngest.
    """
    if pod.spec.preemption_policy == "Never":
        return None
    found = [
        Eviction(info.name, victims) for info in infos if (victims := _victims_on(info, pod, fits))
    ]
    return min(found, key=_harm, default=None)


def _victims_on(info: NodeInfo, pod: Pod, fits: Fits) -> tuple[Pod, ...]:
    lower = [each for each in info.pods.values() if priority_of(each) < priority_of(pod)]
    trial = info.copy()
    for each in lower:
        trial.remove(each.metadata.uid)
    if not lower or not fits(trial):
        return ()
    victims = []
    # The most important ones may stay if there is room for them after all.
    for each in sorted(lower, key=lambda each: (-priority_of(each), _age(each))):
        trial.add(each)
        if not fits(trial):
            trial.remove(each.metadata.uid)
            victims.append(each)
    return tuple(victims)


def _harm(eviction: Eviction) -> tuple[int, int, int, tuple[int, ...], str]:
    priorities = [priority_of(victim) for victim in eviction.victims]
    highest = max(priorities)
    oldest = min(_age(each) for each in eviction.victims if priority_of(each) == highest)
    # Texts of times sort as times; the younger one is the smaller harm.
    youth = tuple(-ord(letter) for letter in oldest)
    # Priorities may be below 0, and more victims are more harm all the same.
    total = sum(priority + (1 << 31) for priority in priorities)
    return highest, total, len(priorities), youth, eviction.node


def priority_of(pod: Pod) -> int:
    """Return a pod's priority."""
    return pod.spec.priority or 0


def _age(pod: Pod) -> str:
    return pod.metadata.creation_timestamp or ""
