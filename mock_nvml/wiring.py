"""NVLinks of a machine: where each goes, and which are up."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml

from mock_nvml.layout import Layout, island_of
from topology.machines import Machine


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


def connect(machine: Machine, layout: Layout, *, hide_switches: bool) -> list[list[LinkState]]:
    """Return the links of each GPU as the machine description says."""
    links = [[LinkState() for _ in range(machine.nvlink.links_per_gpu)] for _ in machine.gpus]
    if machine.nvlink.nvswitch:
        _connect_switches(machine, layout, links, hide_switches=hide_switches)
    else:
        _connect_pairs(machine, layout, links)
    return links


def _connect_pairs(machine: Machine, layout: Layout, links: list[list[LinkState]]) -> None:
    free = [0] * len(links)
    for a, row in enumerate(machine.nvlinks):
        for b in range(a + 1, len(row)):
            for _ in range(row[b]):
                for mine, theirs in ((a, b), (b, a)):
                    links[mine][free[mine]] = LinkState(
                        active=True,
                        peer=(theirs, free[theirs]),
                        remote_pci=layout.gpus[theirs].pci,
                        remote_type=pynvml.NVML_NVLINK_DEVICE_TYPE_GPU,
                    )
                free[a] += 1
                free[b] += 1


def _connect_switches(
    machine: Machine, layout: Layout, links: list[list[LinkState]], *, hide_switches: bool
) -> None:
    per_switch = layout.links_per_switch
    for position, island in enumerate(island_of(machine)):
        if island < 0:
            continue
        first = island * len(per_switch)
        ends = [first + at for at, count in enumerate(per_switch) for _ in range(count)]
        active = machine.active_links[position]
        for number, end in enumerate(ends):
            links[position][number] = LinkState(
                active=number < active,
                remote_pci="" if hide_switches else layout.switches[end].pci,
                remote_type=pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN
                if hide_switches
                else pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH,
            )
