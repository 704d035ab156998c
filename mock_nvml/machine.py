"""A mock machine: its library, behind pynvml or on its own, and its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pynvml

from mock_nvml.client import Client
from mock_nvml.errors import FaultError
from mock_nvml.faults import Fault, check_partition, parse_fault
from mock_nvml.library import Library
from mock_nvml.player import FaultPlayer
from mock_nvml.state import MachineState
from topology.machines import Machine


class MockNvml:
    """A machine that answers like NVML.

    `seed` names the node: equal seeds give equal uuids. `hide_switches` plays a virtual machine in
    which the hypervisor hides the NVSwitches. `missing` names C functions that the library lacks,
    as an old driver's does. `library` can be used without pynvml too. Raises FaultError if the
    description cuts its GPUs into MIG devices that the product does not have.
    """

    def __init__(
        self,
        machine: Machine,
        seed: str = "node",
        *,
        hide_switches: bool = False,
        missing: frozenset[str] = frozenset(),
    ) -> None:
        for gpu in machine.gpus:
            problem = "" if gpu.mig is None else check_partition(machine, gpu.mig)
            if problem:
                raise FaultError(machine.name, f"gpus[{gpu.index}].mig", problem)
        self.machine = machine
        self.state = MachineState(machine, seed, hide_switches=hide_switches)
        self.client = Client(self.state)
        self.library = Library(self.client, missing)
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def install(self) -> None:
        """Put the machine behind this process's unmodified pynvml."""
        if not self._installed:
            self._before = pynvml.nvmlLib
            self._installed = True
        _serve(self.library)

    def uninstall(self) -> None:
        """Give pynvml back what it had before; it must be initialised anew then."""
        if self._installed:
            self._installed = False
            _serve(self._before)

    def inject(self, kind: str, **fields: Any) -> None:
        """Let a fault happen now; raises FaultError if it is malformed.

        >>> from topology.catalogue import load_machine
        >>> MockNvml(load_machine("dgx1-v100")).inject("xid", gpu=3, xid=48)
        """
        entry = {"kind": kind, **fields}
        self.apply(parse_fault(entry, "inject", "", self.machine))

    def apply(self, fault: Fault) -> None:
        """Let a checked fault happen now, whatever its `at`."""
        self.state.apply(fault)

    def play(self, script: Path) -> FaultPlayer:
        """Start playing a fault script; its clock starts now. Raises FaultError if it is malformed.

        Stop what is returned before the machine goes.
        """
        player = FaultPlayer(self.state, script)
        player.start()
        return player


def _serve(library: Any) -> None:
    """Exchange pynvml's library; it caches functions and counts initialisations by itself."""
    with pynvml.libLoadLock:
        pynvml.nvmlLib = library
        pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - it has no public way
        pynvml._nvmlLib_refcount = 0  # noqa: SLF001 - as above
