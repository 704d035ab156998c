"""PCI addresses for a machine's devices: given ones are kept, the others are made up.

Made-up GPU addresses ascend with the index, as on every captured machine, and so do the NICs';
so both orders can be read back from the addresses.
"""

from __future__ import annotations

from collections.abc import Iterator

from topology.machines import Machine

_BUSES = 256
_DEVICES = 32


def format_pci(domain: int, bus: int, device: int = 0, function: int = 0) -> str:
    """Write an address as Linux does."""
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


class BusPool:
    """Hands out PCI buses that no other device sits on, in the wanted domain while it lasts."""

    def __init__(self) -> None:
        self._used: dict[int, set[int]] = {}

    def reserve(self, pci: str) -> None:
        """Take the bus of an address that is given."""
        domain, bus, _ = pci.split(":")
        self._used.setdefault(int(domain, 16), set()).add(int(bus, 16))

    def take(self, domain: int, near: int) -> tuple[int, int]:
        """Return a free bus: the nearest below `near`, else any, else one of the next domain."""
        while True:
            used = self._used.setdefault(domain, set())
            below = (bus for bus in range(near, -1, -1) if bus not in used)
            above = (bus for bus in range(near + 1, _BUSES) if bus not in used)
            bus = next(below, next(above, None))
            if bus is not None:
                used.add(bus)
                return domain, bus
            domain, near = domain + 1, _BUSES - 1

    def free(self, domain: int) -> list[int]:
        """Return the free buses of a domain in ascending order; bus 0 is left to root ports."""
        used = self._used.get(domain, set())
        return [bus for bus in range(1, _BUSES) if bus not in used]


def address_gpus(machine: Machine, pool: BusPool) -> tuple[str, ...]:
    """Return each GPU's address."""
    for gpu in machine.gpus:
        if gpu.pci is not None:
            pool.reserve(gpu.pci)
    step = min(16, (_BUSES - 2) // len(machine.gpus))
    addresses: list[str] = []
    domain, bus = 0, 0
    for gpu in machine.gpus:
        if gpu.pci is not None:
            address = gpu.pci
        else:
            address = format_pci(*_next_bus(pool, domain, bus + step))
            pool.reserve(address)
        addresses.append(address)
        domain, bus = (int(part, 16) for part in address.split(":")[:2])
    return tuple(addresses)


def _next_bus(pool: BusPool, domain: int, start: int) -> tuple[int, int]:
    while True:
        free = [bus for bus in pool.free(domain) if bus >= start]
        if free:
            return domain, free[0]
        domain, start = domain + 1, 1


def address_nics(machine: Machine, pool: BusPool) -> tuple[str, ...]:
    """Return each NIC's address: a bus of its own in domain 0 as long as half of the buses last."""
    count = len(machine.nics)
    free = pool.free(0)
    # The other half stays for bridges; they may also fall back to another domain.
    if count <= len(free) // 2:
        buses = [free[2 * at + 1] for at in range(count)]
        addresses = [format_pci(0, bus) for bus in buses]
    else:
        addresses = [format_pci(*slot) for slot in _packed_slots(count)]
    for address in addresses:
        pool.reserve(address)
    return tuple(addresses)


def _packed_slots(count: int) -> Iterator[tuple[int, int, int]]:
    for at in range(count):
        domain, rest = divmod(at, _BUSES * _DEVICES)
        yield 0x8000 + domain, *divmod(rest, _DEVICES)
