"""Faults of plugins, as metrics and in the log: each kind of fault once in a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from scheduler.engine.decision import Decision
from scheduler.metrics import Metrics

QUIET_SECONDS: Final = 60.0
"""How long a fault that was logged is only counted: it comes with every decision."""

_KINDS_KEPT: Final = 256

_log = structlog.get_logger("scheduler.plugins")


class FaultLog:
    """Told of every decision."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._logged: dict[tuple[str, str], float] = {}

    def tell(self, decision: Decision) -> None:
        """Count what plugins took and what went wrong."""
        self._metrics.count_plugins(decision)
        if not decision.faults:
            return
        now = self._clock()
        for fault in decision.faults:
            kind = fault.plugin, fault.method
            if now - self._logged.get(kind, -QUIET_SECONDS) < QUIET_SECONDS:
                continue
            if len(self._logged) >= _KINDS_KEPT:
                self._logged.clear()
            self._logged[kind] = now
            _log.warning(
                "plugin left out",
                plugin=fault.plugin,
                method=fault.method,
                problem=fault.problem,
                pod=f"{decision.request.namespace}/{decision.request.name}",
            )
