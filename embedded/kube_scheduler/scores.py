"""Which of the nodes that will do is taken: kube-scheduler's scores, as far as they differ. Pure.

TaintToleration, NodeAffinity and NodeResourcesFit with their default weights. The others rate the
nodes of an embedded cluster alike. Ties go to the first name; the real one throws dice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

from embedded.kube_scheduler.affinity import NodeAffinity
from embedded.kube_scheduler.amounts import CPU, MEMORY, Amounts, scored
from embedded.kube_scheduler.cache import NodeInfo
from embedded.kube_scheduler.filters import tolerates
from runtime.objects import Pod

BEST: Final = 100
"""The highest score of a plugin."""

_TAINTS, _AFFINITY, _FIT = 3, 2, 1


def choose_node(
    infos: Iterable[NodeInfo], pod: Pod, request: Amounts, affinity: NodeAffinity
) -> str:
    """Return the name of the node with the best sum of weighted scores."""
    nodes = sorted(infos, key=lambda info: info.name)
    totals = [
        _TAINTS * taints + _AFFINITY * preferred + _FIT * fit
        for taints, preferred, fit in zip(
            rate_taints(nodes, pod),
            rate_affinity(nodes, affinity),
            rate_fit(nodes, request),
            strict=True,
        )
    ]
    return nodes[totals.index(max(totals))].name


def rate_taints(nodes: Sequence[NodeInfo], pod: Pod) -> list[int]:
    """Rate nodes by how few of their PreferNoSchedule taints the pod does not tolerate."""
    counts = [_minds(pod, info) for info in nodes]
    most = max(counts, default=0)
    return [BEST - BEST * count // most if most else BEST for count in counts]


def rate_affinity(nodes: Sequence[NodeInfo], affinity: NodeAffinity) -> list[int]:
    """Rate nodes by the weights of the preferred terms that match them."""
    weights = [affinity.weight(info.node) if info.node else 0 for info in nodes]
    most = max(weights, default=0)
    return [BEST * weight // most if most else 0 for weight in weights]


def rate_fit(nodes: Sequence[NodeInfo], request: Amounts) -> list[int]:
    """Rate nodes by the mean share of CPU and memory that stays free: LeastAllocated."""
    wanted = scored(request)
    return [int(BEST * _free_share(info, wanted)) for info in nodes]


def _minds(pod: Pod, info: NodeInfo) -> int:
    taints = (info.node.spec.taints or ()) if info.node else ()
    return sum(taint.effect == "PreferNoSchedule" and not tolerates(pod, taint) for taint in taints)


def _free_share(info: NodeInfo, wanted: Amounts) -> Fraction:
    shares = [
        max(Fraction(have - info.scored.get(name, 0) - wanted[name], have), Fraction(0))
        for name in (CPU, MEMORY)
        if (have := info.allocatable.get(name))
    ]
    return sum(shares, Fraction(0)) / max(len(shares), 1)
