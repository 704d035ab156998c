"""Where each device of a machine hangs: its PCI address and the bridges above it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from mock_nvml.addresses import BusPool, address_gpus, address_nics, format_pci
from mock_nvml.tree import PciTree, grow_tree
from topology.links import Level
from topology.machines import Machine

_PORTS_PER_BUS = 32


class PciPlace(msgspec.Struct, frozen=True):
    """A device's address, its host bridge (``pci0000:10``) and the bridges down to it."""

    pci: str
    root: str
    bridges: tuple[str, ...]
    numa_node: int

    @property
    def folder(self) -> str:
        """The device's folder below ``devices``."""
        return "/".join((self.root, *self.bridges, self.pci))


class Layout(msgspec.Struct, frozen=True):
    """The PCI tree with addresses. `switches` are the NVSwitches, () without."""

    tree: PciTree
    gpus: tuple[PciPlace, ...]
    nics: tuple[PciPlace, ...]
    switches: tuple[PciPlace, ...]
    links_per_switch: tuple[int, ...]


def lay_out(machine: Machine) -> Layout:
    """Place a machine's devices. The same machine always gets the same layout."""
    tree = grow_tree(machine)
    pool = BusPool()
    gpus = address_gpus(machine, pool)
    addresses = (*gpus, *address_nics(machine, pool))
    places: dict[int, PciPlace] = {}
    for bridge_group in _partition(tree.groups[Level.PHB], range(len(addresses))):
        _Root(pool, tree, addresses, places).fill(bridge_group)
    per_switch = _links_per_switch(machine)
    islands = _count_islands(machine)
    switches = tuple(_place_switch(pool) for _ in range(len(per_switch) * islands))
    ordered = tuple(places[at] for at in range(len(addresses)))
    return Layout(
        tree=tree,
        gpus=ordered[: len(gpus)],
        nics=ordered[len(gpus) :],
        switches=switches,
        links_per_switch=per_switch,
    )


def _partition(labels: Sequence[int], members: Sequence[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for at in members:
        groups.setdefault(labels[at], []).append(at)
    return list(groups.values())


class _Root:
    """One host bridge and what hangs on it."""

    def __init__(
        self,
        pool: BusPool,
        tree: PciTree,
        addresses: Sequence[str],
        places: dict[int, PciPlace],
    ) -> None:
        self._pool = pool
        self._tree = tree
        self._addresses = addresses
        self._places = places

    def fill(self, members: list[int]) -> None:
        """Give every branch (a group that shares bridges) a root port of its own."""
        domain, bus = self._where(members)
        domain, bus = self._pool.take(domain, max(bus - 1, 0))
        root = f"pci{domain:04x}:{bus:02x}"
        ports = _ports(self._pool, domain, bus)
        for branch in _partition(self._tree.groups[Level.PXB], members):
            self._fill_branch(branch, root, next(ports))

    def _fill_branch(self, members: list[int], root: str, port: str) -> None:
        switches = _partition(self._tree.groups[Level.PIX], members)
        if len(members) == 1:
            self._place(members[0], root, (port,))
        elif len(switches) == 1:
            self._fill_switch(members, root, (port,))
        else:
            # Each leaf gets a switch, also a lone device: two devices right under the upper switch
            # would cross only that one.
            upstream, downstream = self._switch(members)
            for leaf in switches:
                self._fill_switch(leaf, root, (port, upstream, next(downstream)))

    def _fill_switch(self, members: list[int], root: str, above: tuple[str, ...]) -> None:
        upstream, downstream = self._switch(members)
        for member in members:
            self._place(member, root, (*above, upstream, next(downstream)))

    def _switch(self, members: list[int]) -> tuple[str, Iterator[str]]:
        """Return a new switch's port towards the CPU, and its ports towards devices."""
        domain, bus = self._where(members)
        domain, bus = self._pool.take(domain, max(bus - 1, 0))
        upstream = format_pci(domain, bus)
        domain, bus = self._pool.take(domain, bus)
        return upstream, _ports(self._pool, domain, bus)

    def _where(self, members: list[int]) -> tuple[int, int]:
        domain, bus = self._addresses[members[0]].split(":")[:2]
        return int(domain, 16), int(bus, 16)

    def _place(self, member: int, root: str, bridges: tuple[str, ...]) -> None:
        self._places[member] = PciPlace(
            pci=self._addresses[member],
            root=root,
            bridges=bridges,
            numa_node=self._tree.numa_nodes[member],
        )


def _ports(pool: BusPool, domain: int, bus: int) -> Iterator[str]:
    """Yield the bridge addresses of a bus, 01.0 first, and of further buses when it is full."""
    while True:
        for device in range(1, _PORTS_PER_BUS):
            yield format_pci(domain, bus, device)
        domain, bus = pool.take(domain, bus)


def _links_per_switch(machine: Machine) -> tuple[int, ...]:
    """Return how many links of a GPU go to each switch: as told, else evenly over a usual count."""
    total = machine.nvlink.links_per_gpu
    if not machine.nvlink.nvswitch or total == 0:
        return ()
    told = tuple(links for links in machine.nvlink.links_per_switch if links)
    if sum(told) == total:
        return told
    # Six switches on V100 and A100 boards, four on Hopper's; each GPU reaches all of them.
    switches = min(total, 6 if total <= 12 else 4)
    return tuple(total // switches + (at < total % switches) for at in range(switches))


def _count_islands(machine: Machine) -> int:
    return max(island_of(machine), default=-1) + 1


def island_of(machine: Machine) -> tuple[int, ...]:
    """Return each GPU's island: the GPUs that one set of NVSwitches joins; -1 without links."""
    islands = [-1] * len(machine.gpus)
    count = 0
    for at, active in enumerate(machine.active_links):
        if not active or islands[at] >= 0:
            continue
        for other, links in enumerate(machine.nvlinks[at]):
            if links or other == at:
                islands[other] = count
        count += 1
    return tuple(islands)


def _place_switch(pool: BusPool) -> PciPlace:
    domain, bus = pool.take(0, 5)
    _, root = pool.take(domain, bus)
    return PciPlace(
        pci=format_pci(domain, bus),
        root=f"pci{domain:04x}:{root:02x}",
        bridges=(format_pci(domain, root, 1),),
        numa_node=-1,
    )
