"""One process's use of the library: initialisations, handles, event sets.

Each process that loads the library has its own, while all of them see one machine. Whoever calls
holds the machine's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import pynvml

from mock_nvml.errors import NvmlStatusError
from mock_nvml.layout import Layout
from mock_nvml.state import EventState, GpuState, MachineState
from topology.machines import Machine


@dataclass(eq=False)
class EventSetState:
    """An event set, equal to itself only: what is watched, and what has happened since."""

    masks: dict[int, int] = field(default_factory=dict)
    pending: deque[EventState] = field(default_factory=deque)


class Client:
    """A process that has loaded the machine's library."""

    def __init__(self, machine: MachineState) -> None:
        self.state = machine
        self.references = 0
        self.generation = 0
        """Counts initialisations; handles of an earlier one are void."""
        self.enumerated: tuple[int, ...] = ()
        """Positions in the order of NVML's index, as of the last initialisation."""
        self.event_sets: dict[int, EventSetState] = {}
        self._next_event_set = 1
        self._library_version = machine.driver.version
        self._driver_loads = 0
        machine.join(self)

    def close(self) -> None:
        """End the process."""
        self.state.leave(self)

    @property
    def changed(self) -> threading.Condition:
        """The machine's lock, notified of each change."""
        return self.state.changed

    @property
    def machine(self) -> Machine:
        """The machine's description."""
        return self.state.machine

    @property
    def layout(self) -> Layout:
        """The machine's PCI tree."""
        return self.state.layout

    @property
    def gpus(self) -> tuple[GpuState, ...]:
        """All GPUs, by position."""
        return self.state.gpus

    def initialise(self) -> None:
        """Count a user; the first one numbers the GPUs that are there, as the description does.

        DRIVER_NOT_LOADED without the driver; LIB_RM_VERSION_MISMATCH if the driver is another than
        the one whose library this process has loaded.
        """
        if not self.state.driver.loaded:
            raise NvmlStatusError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        if self.state.driver.version != self._library_version:
            raise NvmlStatusError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
        if self.references == 0:
            self.generation += 1
            self._driver_loads = self.state.driver.loads
            present = (gpu for gpu in self.gpus if not gpu.removed)
            self.enumerated = tuple(gpu.position for gpu in present)
        self.references += 1

    def check(self) -> None:
        """End the call unless the library is initialised, by the driver that is loaded now.

        What was initialised before the driver was loaded anew gets UNKNOWN until it shuts down.
        """
        if self.references == 0:
            raise NvmlStatusError(pynvml.NVML_ERROR_UNINITIALIZED)
        if not self.state.driver.loaded or self._driver_loads != self.state.driver.loads:
            raise NvmlStatusError(pynvml.NVML_ERROR_UNKNOWN)

    def shut_down(self) -> None:
        """Uncount a user; with the last one handles and event sets end."""
        if self.references == 0:
            raise NvmlStatusError(pynvml.NVML_ERROR_UNINITIALIZED)
        self.references -= 1
        if self.references == 0:
            self.event_sets.clear()
            self.changed.notify_all()

    def make_event_set(self) -> int:
        """Return the number of a new event set."""
        number, self._next_event_set = self._next_event_set, self._next_event_set + 1
        self.event_sets[number] = EventSetState()
        return number

    def hear(self, event: EventState) -> None:
        """Hand an event to the sets that watch for it now; nobody gets it later."""
        for watching in self.event_sets.values():
            if watching.masks.get(event.position, 0) & event.type:
                watching.pending.append(event)
