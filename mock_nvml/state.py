"""One machine's state behind NVML: what its GPUs are, how they fare, and who waits for events.

Everything is guarded by `MachineState.changed`, a condition that is notified of each change.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import pynvml

from mock_nvml.errors import NvmlStatusError
from mock_nvml.faults import (
    Ecc,
    FailingCall,
    Fault,
    LinkDown,
    Lost,
    Partition,
    Recover,
    Removed,
    SlowCall,
    Xid,
    code_of,
)
from mock_nvml.layout import Layout, island_of, lay_out
from mock_nvml.mig import MigState, uuid_text
from mock_nvml.mig_profiles import geometry_of, named_profiles
from mock_nvml.products import Product, find_product
from topology.machines import Machine, MachineGpu

WHOLE_GPU: Final = 0xFFFFFFFF
"""Instance ids in an event that belongs to no MIG instance."""

_FELL_OFF_THE_BUS: Final = 79


@dataclass
class LinkState:
    """One NVLink of a GPU: where it goes and whether it is up.

    `peer` is the far GPU's position and its link number, None towards a switch. `remote_pci` is ""
    where a hypervisor hides the far end.
    """

    active: bool = False
    peer: tuple[int, int] | None = None
    remote_pci: str = ""
    remote_type: int = pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN


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


@dataclass(eq=False)
class EventSetState:
    """An event set, equal to itself only: what is watched, and what has happened since."""

    masks: dict[int, int] = field(default_factory=dict)
    pending: deque[EventState] = field(default_factory=deque)


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
        self.references = 0
        self.generation = 0
        """Counts initialisations; handles of an earlier one are void."""
        self.enumerated: tuple[int, ...] = ()
        """Positions in the order of NVML's index, as of the last initialisation."""
        self.event_sets: dict[int, EventSetState] = {}
        self._next_event_set = 1
        self._call_faults: list[_CallFault] = []
        self._hide_switches = hide_switches
        product = find_product(machine.model)
        take_number = itertools.count(1).__next__
        self.gpus = tuple(
            GpuState(
                position=at,
                told=gpu,
                uuid=gpu_uuid(seed, at),
                pci=self.layout.gpus[at].pci,
                product=product,
                links=[LinkState() for _ in range(machine.nvlink.links_per_gpu)],
                mig=MigState(geometry_of(product), f"mig/{seed}/{at}", take_number),
            )
            for at, gpu in enumerate(machine.gpus)
        )
        # A multi-node fabric joins machines: its uuid is that of the kind, not of the node.
        self.cluster_uuid = bytes.fromhex(uuid_text(f"fabric/{machine.name}").replace("-", ""))
        self._connect()
        for gpu in self.gpus:
            if gpu.told.mig is not None:
                self.apply(Partition(gpu=gpu.position, profiles=gpu.told.mig))

    def _connect(self) -> None:
        """Set every link as the machine description says."""
        for gpu in self.gpus:
            gpu.links[:] = [LinkState() for _ in gpu.links]
        if self.machine.nvlink.nvswitch:
            self._connect_switches()
        else:
            self._connect_pairs()

    def _connect_pairs(self) -> None:
        free = [0] * len(self.gpus)
        for a, row in enumerate(self.machine.nvlinks):
            for b in range(a + 1, len(row)):
                for _ in range(row[b]):
                    for mine, theirs in ((a, b), (b, a)):
                        self.gpus[mine].links[free[mine]] = LinkState(
                            active=True,
                            peer=(theirs, free[theirs]),
                            remote_pci=self.gpus[theirs].pci,
                            remote_type=pynvml.NVML_NVLINK_DEVICE_TYPE_GPU,
                        )
                    free[a] += 1
                    free[b] += 1

    def _connect_switches(self) -> None:
        per_switch = self.layout.links_per_switch
        islands = island_of(self.machine)
        for gpu, island in zip(self.gpus, islands, strict=True):
            if island < 0:
                continue
            first = island * len(per_switch)
            ends = [first + at for at, links in enumerate(per_switch) for _ in range(links)]
            active = self.machine.active_links[gpu.position]
            for number, end in enumerate(ends):
                gpu.links[number] = LinkState(
                    active=number < active,
                    remote_pci="" if self._hide_switches else self.layout.switches[end].pci,
                    remote_type=pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN
                    if self._hide_switches
                    else pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH,
                )

    def initialise(self) -> None:
        """Count a user; the first one numbers the GPUs that are there, as the description does."""
        if self.references == 0:
            self.generation += 1
            present = (gpu for gpu in self.gpus if not gpu.removed)
            self.enumerated = tuple(gpu.position for gpu in present)
        self.references += 1

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

    def post(self, event: EventState) -> None:
        """Hand an event to the sets that watch for it now; nobody gets it later."""
        for watching in self.event_sets.values():
            if watching.masks.get(event.position, 0) & event.type:
                watching.pending.append(event)
        self.changed.notify_all()

    def apply(self, fault: Fault) -> None:
        """Let a fault happen."""
        with self.changed:
            match fault:
                case Xid():
                    self._report_xid(fault)
                case Ecc():
                    self._count_errors(fault)
                case Lost():
                    self._lose(fault)
                case Removed():
                    self.gpus[fault.gpu].lost = self.gpus[fault.gpu].removed = True
                case LinkDown():
                    self._take_down(fault)
                case Partition():
                    self._partition(fault)
                case FailingCall():
                    self._call_faults.append(_CallFault(fault, left=fault.times))
                case SlowCall():
                    self._call_faults.append(_CallFault(fault))
                case Recover():
                    self._recover(fault.gpu)
            self.changed.notify_all()

    def _lose(self, fault: Lost) -> None:
        if fault.event:
            self._report_xid(Xid(gpu=fault.gpu, xid=_FELL_OFF_THE_BUS))
        self.gpus[fault.gpu].lost = True
        self.gpus[fault.gpu].answers = frozenset(fault.answers)

    def _report_xid(self, fault: Xid) -> None:
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

    def _count_errors(self, fault: Ecc) -> None:
        if fault.double:
            self.gpus[fault.gpu].double_bit_errors += fault.count
            kind = pynvml.nvmlEventTypeDoubleBitEccError
        else:
            self.gpus[fault.gpu].single_bit_errors += fault.count
            kind = pynvml.nvmlEventTypeSingleBitEccError
        self.post(EventState(position=fault.gpu, type=kind, data=0))

    def _take_down(self, fault: LinkDown) -> None:
        links = self.gpus[fault.gpu].links
        for number, link in enumerate(links):
            if fault.link in (None, number):
                link.active = False
                if link.peer is not None:
                    there, far = link.peer
                    self.gpus[there].links[far].active = False

    def report_mig_change(self, gpu: GpuState) -> None:
        """Tell who watches for it that a GPU is cut otherwise now."""
        event = EventState(position=gpu.position, type=pynvml.nvmlEventMigConfigChange, data=0)
        self.post(event)

    def _partition(self, fault: Partition) -> None:
        gpu = self.gpus[fault.gpu]
        known = named_profiles(gpu.product)
        gpu.mig.partition(
            None if fault.profiles is None else [known[name] for name in fault.profiles]
        )
        self.report_mig_change(gpu)

    def _recover(self, position: int | None) -> None:
        for gpu in self.gpus:
            if position in (None, gpu.position):
                gpu.lost = gpu.removed = False
                gpu.single_bit_errors = gpu.double_bit_errors = 0
        self._restore_links(position)
        kept: list[_CallFault] = []
        for active in self._call_faults:
            if position in (None, active.fault.gpu):
                active.ended.set()
            else:
                kept.append(active)
        self._call_faults = kept

    def _restore_links(self, position: int | None) -> None:
        """Raise a GPU's links again, on both ends; those of other pairs stay down."""
        down = {
            (gpu.position, number)
            for gpu in self.gpus
            for number, link in enumerate(gpu.links)
            if not link.active
            and position is not None
            and position not in (gpu.position, link.peer[0] if link.peer else gpu.position)
        }
        self._connect()
        for at, number in down:
            self.gpus[at].links[number].active = False

    def call_faults(
        self, function: str, position: int | None
    ) -> tuple[float, int, threading.Event]:
        """Return what is wrong with a call now: a delay in seconds, a code (0 is none).

        The event ends the delay early when the machine recovers.
        """
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
