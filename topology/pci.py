"""PCI addresses in the forms that tools print them, made one: ``0000:8f:00.0``."""

from __future__ import annotations

import re

_PCI = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])\.([0-7])")


def normalise_pci(text: str) -> str:
    """Return a PCI address as Linux writes it; raises ValueError if it is none.

    >>> normalise_pci("8F:00.0"), normalise_pci("00000001:07:00.0")
    ('0000:8f:00.0', '0001:07:00.0')
    """
    match = _PCI.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a PCI address")
    domain, bus, device = (int(part or "0", 16) for part in match.group(1, 2, 3))
    return f"{domain:04x}:{bus:02x}:{device:02x}.{match[4]}"


def pci_order(pci: str) -> tuple[int, int, int, int]:
    """Return an address as numbers that sort.

    >>> pci_order("0001:8f:00.1")
    (1, 143, 0, 1)
    """
    domain, bus, rest = pci.split(":")
    device, function = rest.split(".")
    return int(domain, 16), int(bus, 16), int(device, 16), int(function, 16)
