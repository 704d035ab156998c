"""One machine's state behind NVML: what its GPUs are, how they fare, and who waits for events.

Everything is guarded by `MachineState.changed`, a condition that is notified of each change.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Final

import pynvml

from mock_nvml.faults import (
    Driver,
    Ecc,
    FailingCall,
    Fault,
    LinkDown,
    LinkUp,
    Lost,
    Partition,
    Recover,
    Remap,
    Removed,
    SlowCall,
    Thermal,
    Xid,
    code_of,
)
from mock_nvml.layout import Layout, lay_out
from mock_nvml.mig import MigState, uuid_text
from mock_nvml.mig_profiles import geometry_of, named_profiles
from mock_nvml.products import Product, find_product
from mock_nvml.wiring import LinkState, connect
from topology.machines import Machine, MachineGpu

if TYPE_CHECKING:
    from mock_nvml.client import Client

WHOLE_GPU: Final = 0xFFFFFFFF
"""Instance ids in an event that belongs to no MIG instance."""

DRIVER_VERSION: Final = "580.95.05"
IDLE_CELSIUS: Final = 34

_FELL_OFF_THE_BUS: Final = 79


@dataclass
class DriverState:
    """The kernel's driver. `loads` counts how often it was loaded."""

    version: str = DRIVER_VERSION
    loaded: bool = True
    loads: int = 0


@dataclass
class GpuState:
    """One GPU."""

    position: int
    told: MachineGpu
    uuid: str
    pci: str
    product: Product
    links: list[LinkState]
    mig: MigState
    lost: bool = False
    removed: bool = False
    answers: frozenset[str] = frozenset()
    celsius: int = IDLE_CELSIUS
    remap_pending: bool = False
    remap_failed: bool = False
    single_bit_errors: int = 0
    double_bit_errors: int = 0


@dataclass(frozen=True)
class EventState:
    """An event that happened to a GPU."""

    position: int
    type: int
    data: int
    gpu_instance: int = WHOLE_GPU
    compute_instance: int = WHOLE_GPU


@dataclass
class _CallFault:
    fault: FailingCall | SlowCall
    ended: threading.Event = field(default_factory=threading.Event)
    left: int | None = None


def gpu_uuid(seed: str, index: int) -> str:
    """Return the uuid of a mock GPU: the same for a seed (a node's name) and index, always."""
    return f"GPU-{uuid_text(f'gpu/{seed}/{index}')}"


class MachineState:
    """The state of one machine. `hide_switches` plays a virtual machine that sees no NVSwitch."""

    def __init__(self, machine: Machine, seed: str, *, hide_switches: bool = False) -> None:
        self.machine = machine
        self.layout: Layout = lay_out(machine)
        self.changed = threading.Condition()
        self.driver = DriverState()
        self.calls: Counter[str] = Counter()
        """How often each C function was called, by all processes together."""
        self._clients: list[Client] = []
        self._call_faults: list[_CallFault] = []
        self._hide_switches = hide_switches
        product = find_product(machine.model)
        links = connect(machine, self.layout, hide_switches=hide_switches)
        take_number = itertools.count(1).__next__
        self.gpus = tuple(
            GpuState(
                position=at,
                told=gpu,
                uuid=gpu_uuid(seed, at),
                pci=self.layout.gpus[at].pci,
                product=product,
                links=links[at],
                mig=MigState(geometry_of(product), f"mig/{seed}/{at}", take_number),
            )
            for at, gpu in enumerate(machine.gpus)
        )
        # A multi-node fabric joins machines: its uuid is that of the kind, not of the node.
        self.cluster_uuid = bytes.fromhex(uuid_text(f"fabric/{machine.name}").replace("-", ""))
        for gpu in self.gpus:
            if gpu.told.mig is not None:
                self.apply(Partition(gpu=gpu.position, profiles=gpu.told.mig))

    def post(self, event: EventState) -> None:
        """Hand an event to the sets that watch for it now; nobody gets it later."""
        for client in self._clients:
            client.hear(event)
        self.changed.notify_all()

    def join(self, client: Client) -> None:
        """Let a process hear of events."""
        with self.changed:
            self._clients.append(client)

    def leave(self, client: Client) -> None:
        """Forget a process: its waiters go home."""
        with self.changed:
            self._clients.remove(client)
            client.event_sets.clear()
            self.changed.notify_all()

    def report_mig_change(self, gpu: GpuState) -> None:
        """Tell who watches for it that a GPU is cut otherwise now."""
        event = EventState(position=gpu.position, type=pynvml.nvmlEventMigConfigChange, data=0)
        self.post(event)

    def apply(self, fault: Fault) -> None:
        """Let a fault happen."""
        with self.changed:
            self._befall(fault)
            self.changed.notify_all()

    @singledispatchmethod
    def _befall(self, fault: Fault) -> None:
        raise NotImplementedError(fault)

    @_befall.register
    def _(self, fault: Xid) -> None:
        self.post(
            EventState(
                position=fault.gpu,
                type=pynvml.nvmlEventTypeXidCriticalError,
                data=fault.xid,
                gpu_instance=WHOLE_GPU if fault.gpu_instance is None else fault.gpu_instance,
                compute_instance=WHOLE_GPU
                if fault.compute_instance is None
                else fault.compute_instance,
            )
        )

    @_befall.register
    def _(self, fault: Ecc) -> None:
        if fault.double:
            self.gpus[fault.gpu].double_bit_errors += fault.count
            kind = pynvml.nvmlEventTypeDoubleBitEccError
        else:
            self.gpus[fault.gpu].single_bit_errors += fault.count
            kind = pynvml.nvmlEventTypeSingleBitEccError
        self.post(EventState(position=fault.gpu, type=kind, data=0))

    @_befall.register
    def _(self, fault: Lost) -> None:
        if fault.event:
            self._befall(Xid(gpu=fault.gpu, xid=_FELL_OFF_THE_BUS))
        self.gpus[fault.gpu].lost = True
        self.gpus[fault.gpu].answers = frozenset(fault.answers)

    @_befall.register
    def _(self, fault: Removed) -> None:
        self.gpus[fault.gpu].lost = self.gpus[fault.gpu].removed = True

    @_befall.register
    def _(self, fault: LinkDown) -> None:
        for number, link in enumerate(self.gpus[fault.gpu].links):
            if fault.link in (None, number):
                link.active = False
                if link.peer is not None:
                    there, far = link.peer
                    self.gpus[there].links[far].active = False

    @_befall.register
    def _(self, fault: LinkUp) -> None:
        self._restore_links(fault.gpu, fault.link)

    @_befall.register
    def _(self, fault: Thermal) -> None:
        self.gpus[fault.gpu].celsius = fault.celsius

    @_befall.register
    def _(self, fault: Remap) -> None:
        self.gpus[fault.gpu].remap_pending = fault.pending
        self.gpus[fault.gpu].remap_failed = fault.failed

    @_befall.register
    def _(self, fault: Driver) -> None:
        self.driver.loaded = fault.loaded
        self.driver.loads += fault.loaded
        self.driver.version = fault.version or self.driver.version
        for client in self._clients:
            client.event_sets.clear()

    @_befall.register
    def _(self, fault: Partition) -> None:
        gpu = self.gpus[fault.gpu]
        known = named_profiles(gpu.product)
        gpu.mig.partition(
            None if fault.profiles is None else [known[name] for name in fault.profiles]
        )
        self.report_mig_change(gpu)

    @_befall.register
    def _(self, fault: FailingCall) -> None:
        self._call_faults.append(_CallFault(fault, left=fault.times))

    @_befall.register
    def _(self, fault: SlowCall) -> None:
        self._call_faults.append(_CallFault(fault))

    @_befall.register
    def _(self, fault: Recover) -> None:
        for gpu in self.gpus:
            if fault.gpu in (None, gpu.position):
                gpu.lost = gpu.removed = False
                gpu.single_bit_errors = gpu.double_bit_errors = 0
                gpu.celsius = IDLE_CELSIUS
                gpu.remap_pending = gpu.remap_failed = False
        if fault.gpu is None:
            self.driver.version, self.driver.loaded = DRIVER_VERSION, True
        self._restore_links(fault.gpu)
        kept: list[_CallFault] = []
        for active in self._call_faults:
            if fault.gpu in (None, active.fault.gpu):
                active.ended.set()
            else:
                kept.append(active)
        self._call_faults = kept

    def _restore_links(self, position: int | None, number: int | None = None) -> None:
        """Raise links of a GPU again, on both ends; those of other pairs stay down."""
        whole = connect(self.machine, self.layout, hide_switches=self._hide_switches)
        for gpu in self.gpus:
            for at, link in enumerate(gpu.links):
                ends = ((gpu.position, at), link.peer or (gpu.position, at))
                if any(
                    position in (None, owner) and number in (None, mine) for owner, mine in ends
                ):
                    link.active = whole[gpu.position][at].active

    def call_faults(
        self, function: str, position: int | None
    ) -> tuple[float, int, threading.Event]:
        """Count a call; return what is wrong with it now: a delay in seconds, a code (0: none).

        The event ends the delay early when the machine recovers.
        """
        self.calls[function] += 1
        delay, code, ended = 0.0, 0, threading.Event()
        for active in self._call_faults:
            fault = active.fault
            if fault.function != function or fault.gpu not in (None, position):
                continue
            if isinstance(fault, SlowCall):
                if fault.seconds > delay:
                    delay, ended = fault.seconds, active.ended
            elif active.left != 0 and code == 0:
                active.left = None if active.left is None else active.left - 1
                code = code_of(fault.code) or 0
        return delay, code, ended
