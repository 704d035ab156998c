"""Since when each device is as it is: what the state says beside the bare lists."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from deviceplugin.resources.inventory import Inventory
from topology.wire import DeviceCondition, DeviceStatus


def statuses(inventory: Inventory) -> dict[str, tuple[DeviceStatus, str]]:
    """Return what is to be said of each device that is not simply well, and why. Pure.

    Of several the gravest: unhealthy, then cordoned, then degraded.
    """
    found: dict[str, tuple[DeviceStatus, str]] = {
        uuid: (DeviceStatus.DEGRADED, why) for uuid, why in inventory.degraded.items()
    }
    for uuid, held in inventory.cordoned.items():
        why = "a pod still holds it" if held else "with no pod"
        found[uuid] = (DeviceStatus.CORDONED, why)
    for uuid, why in inventory.unhealthy.items():
        found[uuid] = (DeviceStatus.UNHEALTHY, why)
    return found


class ConditionLog:
    """Remembers when each device became what it is. Any thread."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._conditions: dict[str, DeviceCondition] = {}

    def adopt(self, conditions: Mapping[str, DeviceCondition]) -> None:
        """Take over what a former process said: nothing began with our start."""
        with self._lock:
            self._conditions = dict(conditions)

    def take(self, inventory: Inventory) -> None:
        """Take an inventory; before the first discovery there is nothing to say."""
        if not inventory.topology.gpus:
            return
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            before, self._conditions = self._conditions, {}
            for uuid, (status, why) in sorted(statuses(inventory).items()):
                old = before.get(uuid)
                since = old.since if old is not None and old.status == status else stamp
                self._conditions[uuid] = DeviceCondition(str(status), why, since)

    def read(self) -> dict[str, DeviceCondition]:
        """Return the conditions by uuid."""
        with self._lock:
            return dict(self._conditions)
