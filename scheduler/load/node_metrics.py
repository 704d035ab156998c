"""The Kubernetes metrics API (metrics.k8s.io/v1beta1, nodes): bytes -> samples of CPU and memory.

It tells amounts; the share in use is of the node's capacity, as node-exporter's is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from runtime.errors import QuantityError
from runtime.quantity import parse_quantity
from scheduler.load.errors import AnswerError, cut
from scheduler.load.nodes import NodeSize
from scheduler.load.samples import Intake, Metric, Reading

SOURCE: Final = "metrics_api"

PATH: Final = "/apis/metrics.k8s.io/v1beta1/nodes"

MEASURED: Final[tuple[Metric, ...]] = ("cpu", "memory")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class _Meta(msgspec.Struct):
    name: str


class _Usage(msgspec.Struct):
    metadata: _Meta
    timestamp: str
    usage: dict[str, str | int | float]
    window: str = "0s"


class _List(msgspec.Struct):
    items: list[_Usage]


_decode = msgspec.json.Decoder(_List).decode


def read_usage(body: bytes, sizes: Mapping[str, NodeSize], *, now: float) -> tuple[Reading, ...]:
    """Read a NodeMetricsList: a reading of CPU and one of memory. `now` is in Unix seconds.

    Raises AnswerError if it is none. What is wrong with single nodes is counted in the readings.
    """
    try:
        listed = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        begins = body[:40].decode(errors="replace")
        raise AnswerError(cut(f"not a list of node metrics ({error}): {begins!r}")) from None
    cpu, memory = (Intake(metric, SOURCE, now) for metric in MEASURED)
    for item in listed.items:
        name = item.metadata.name
        size = sizes.get(name)
        try:
            taken = datetime.fromisoformat(item.timestamp).timestamp()
            window = _seconds(item.window)
        except (ValueError, OverflowError):
            for intake in (cpu, memory):
                intake.refuse("unreadable", cut(f"{name} {item.timestamp} {item.window}"))
            continue
        for intake, resource, whole, average in (
            (cpu, "cpu", size.cpu_capacity if size else 0.0, window),
            # The working set is of one moment.
            (memory, "memory", size.memory_capacity if size else 0.0, 0.0),
        ):
            used = _amount(item.usage.get(resource))
            if not whole:
                intake.refuse("unknown_node", name)
            elif used is None:
                intake.refuse("unreadable", cut(f"{name} {item.usage.get(resource)}"))
            else:
                intake.offer(name, used / whole, taken, average)
    return cpu.close(), memory.close()


def _amount(value: str | float | None) -> float | None:
    if value is None:
        return None
    try:
        return float(parse_quantity(value))
    except (QuantityError, OverflowError):
        return None


def _seconds(text: str) -> float:
    """Read a duration as Go writes it: ``30s``, ``1m0.5s``. Raises ValueError."""
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
