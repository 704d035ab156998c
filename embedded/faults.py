"""The faults that a demo can inject: what, where, when. Pure; fault_injection.py does them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from embedded.errors import FaultError

LATEST_SECONDS: Final = 600.0
ALL: Final = "all"


class FaultKind(StrEnum):
    """What is broken on purpose."""

    PLUGIN_KILLED = "plugin-killed"
    PLUGIN_SOCKET_DELETED = "plugin-socket-deleted"
    KUBELET_RESTARTED = "kubelet-restarted"
    KUBELET_SOCKET_RECREATED = "kubelet-socket-recreated"
    EXTENDER_KILLED = "extender-killed"
    APISERVER_AWAY = "apiserver-away"
    GPU_LOST = "gpu-lost"
    GPU_XID = "gpu-xid"


# These happen to the cluster, not to a node.
CLUSTER_WIDE: Final = frozenset({FaultKind.EXTENDER_KILLED, FaultKind.APISERVER_AWAY})

# How long what was taken away stays away, in seconds.
LASTING: Final = {
    FaultKind.APISERVER_AWAY: 10.0,
    FaultKind.GPU_LOST: 4.0,
}


class Fault(msgspec.Struct, frozen=True):
    """One fault: `at` seconds after the first pod, on `node` ("" for the whole cluster).

    `lasting` is how long the thing stays away, in seconds; 0 where it returns by itself.
    """

    kind: FaultKind
    node: str
    at: float
    lasting: float = 0.0

    @property
    def end(self) -> float:
        """When the fault itself is over; recovery takes from here on."""
        return self.at + self.lasting

    def __str__(self) -> str:
        where = f":{self.node}" if self.node else ""
        return f"{self.kind}{where}@{self.at:g}"


_SHAPE = re.compile(
    r"(?P<kind>[a-z-]+)(?::(?P<node>[^@+]+))?@(?P<at>[0-9.]+)(?:\+(?P<lasting>[0-9.]+))?"
)


def parse_fault(text: str, nodes: Sequence[str]) -> Fault:
    """Read ``KIND[:NODE]@SECONDS[+LASTING]``; without a node the first one is taken.

    Raises FaultError naming what is wrong.

    >>> str(parse_fault("plugin-killed:n02@5", ["n01", "n02"]))
    'plugin-killed:n02@5'
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise FaultError(f"--fault {text!r}: expected KIND[:NODE]@SECONDS[+LASTING]")
    try:
        kind = FaultKind(match["kind"])
    except ValueError:
        known = ", ".join(FaultKind)
        raise FaultError(f"--fault {text!r}: no kind {match['kind']!r}; known: {known}") from None
    node = match["node"] or ""
    if kind in CLUSTER_WIDE and node:
        raise FaultError(f"--fault {text!r}: {kind} happens to the cluster, not to a node")
    if node and node not in nodes:
        raise FaultError(f"--fault {text!r}: no node {node!r}; there are {nodes[0]} to {nodes[-1]}")
    if match["lasting"] is not None and kind not in LASTING:
        raise FaultError(f"--fault {text!r}: {kind} has no duration")
    return Fault(
        kind=kind,
        node="" if kind in CLUSTER_WIDE else node or nodes[0],
        at=_read_seconds(text, match["at"]),
        lasting=_read_seconds(text, match["lasting"]) if match["lasting"] else LASTING.get(kind, 0),
    )


def parse_faults(texts: Sequence[str], nodes: Sequence[str]) -> tuple[Fault, ...]:
    """Read all ``--fault`` options, ``all`` being one of each kind; in order of time."""
    faults: list[Fault] = []
    for text in texts:
        faults.extend(spread_faults(nodes) if text == ALL else [parse_fault(text, nodes)])
    return tuple(sorted(faults, key=lambda fault: fault.at))


def spread_faults(nodes: Sequence[str], start: float = 3.0, gap: float = 4.0) -> list[Fault]:
    """Return one fault of each kind, on node after node; the API server goes away last."""
    kinds = sorted(FaultKind, key=lambda kind: kind is FaultKind.APISERVER_AWAY)
    return [
        Fault(
            kind=kind,
            node="" if kind in CLUSTER_WIDE else nodes[number % len(nodes)],
            at=start + gap * number,
            lasting=LASTING.get(kind, 0.0),
        )
        for number, kind in enumerate(kinds)
    ]


def _read_seconds(text: str, number: str) -> float:
    try:
        seconds = float(number)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LATEST_SECONDS:
        raise FaultError(f"--fault {text!r}: {number!r} is not 0 to {LATEST_SECONDS:g} seconds")
    return seconds
