"""GPU products as data: found in a machine description's free words.

Numbers are those of captured machines where there were some; NVLink counts are not here, since
the description tells them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_NVIDIA: Final = 0x10DE


class Product(msgspec.Struct, frozen=True):
    """A GPU product as NVML tells it.

    `device_id` is PCI's. `architecture` is NVML's number (Volta 5 ... Blackwell 10).
    `nvlink_version` is NVML's enumeration (2.0 is 2, 3.0 is 4, 4.0 is 6, 5.0 is 7), of use only
    where the description has links. `features` are "mig", "quarters" (MIG cuts into four slices,
    not seven), "ecc", "fabric" (the board registers with a fabric manager) and "geforce" (no P2P
    over PCIe unless a patched driver lets it).
    """

    name: str
    device_id: int
    memory_mib: int
    architecture: int
    compute: str
    pcie_gen: int
    nvlink_version: int
    features: frozenset[str]

    @property
    def pci_device_id(self) -> int:
        """The device in the high 16 bits, the vendor in the low, as NVML has it."""
        return self.device_id << 16 | _NVIDIA


# Words in a model, then the fields. The first row whose words are found wins: longer names stand
# before shorter ones.
_ROWS: Final = (
    ("GB300", "NVIDIA GB300", 0x31C2, 284208, 10, "10.3", 6, 7, "mig ecc fabric"),
    ("GB200", "NVIDIA GB200", 0x2941, 189471, 10, "10.0", 6, 7, "mig ecc fabric"),
    ("B300", "NVIDIA B300 SXM6 AC", 0x3182, 275040, 10, "10.3", 6, 7, "mig ecc fabric"),
    ("B200", "NVIDIA B200", 0x2901, 183359, 10, "10.0", 5, 7, "mig ecc fabric"),
    ("H200", "NVIDIA H200", 0x2335, 143771, 9, "9.0", 5, 6, "mig ecc fabric"),
    ("H20", "NVIDIA H20-3e", 0x232C, 143771, 9, "9.0", 5, 6, "mig ecc fabric"),
    ("H100", "NVIDIA H100 80GB HBM3", 0x2330, 81559, 9, "9.0", 5, 6, "mig ecc fabric"),
    ("A800", "NVIDIA A800-SXM4-80GB", 0x20F3, 81920, 7, "8.0", 4, 4, "mig ecc"),
    ("A100 PCIe", "NVIDIA A100 80GB PCIe", 0x20B5, 81920, 7, "8.0", 4, 4, "mig ecc"),
    ("A100 80GB", "NVIDIA A100-SXM4-80GB", 0x20B2, 81920, 7, "8.0", 4, 4, "mig ecc"),
    ("A100", "NVIDIA A100-SXM4-40GB", 0x20B0, 40960, 7, "8.0", 4, 4, "mig ecc"),
    ("A30", "NVIDIA A30", 0x20B7, 24576, 7, "8.0", 4, 4, "mig quarters ecc"),
    ("A6000", "NVIDIA RTX A6000", 0x2230, 49140, 7, "8.6", 4, 4, "ecc"),
    ("A40", "NVIDIA A40", 0x2235, 46068, 7, "8.6", 4, 4, "ecc"),
    ("A10", "NVIDIA A10", 0x2236, 23028, 7, "8.6", 4, 0, "ecc"),
    ("V100 PCIe", "Tesla V100-PCIE-16GB", 0x1DB4, 16384, 5, "7.0", 3, 2, "ecc"),
    ("V100", "Tesla V100-SXM2-16GB", 0x1DB1, 16384, 5, "7.0", 3, 2, "ecc"),
    ("P40", "Tesla P40", 0x1B38, 24576, 4, "6.1", 3, 0, "ecc"),
    ("P100", "Tesla P100-SXM2-16GB", 0x15F9, 16384, 4, "6.0", 3, 1, "ecc"),
    ("K80", "Tesla K80", 0x102D, 11441, 2, "3.7", 3, 0, "ecc"),
    ("T4", "Tesla T4", 0x1EB8, 15360, 6, "7.5", 3, 0, "ecc"),
    ("L40S", "NVIDIA L40S", 0x26B9, 46068, 8, "8.9", 4, 0, "ecc"),
    ("L40", "NVIDIA L40", 0x26B5, 46068, 8, "8.9", 4, 0, "ecc"),
    ("L4", "NVIDIA L4", 0x27B8, 23034, 8, "8.9", 4, 0, "ecc"),
    (
        "RTX PRO 6000",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        0x2BB5,
        97887,
        10,
        "12.0",
        5,
        0,
        "mig quarters ecc",
    ),
    ("RTX 5090", "NVIDIA GeForce RTX 5090", 0x2B85, 32607, 10, "12.0", 5, 0, "geforce"),
    ("RTX 5060", "NVIDIA GeForce RTX 5060 Ti", 0x2D04, 16311, 10, "12.0", 5, 0, "geforce"),
    ("RTX 4090", "NVIDIA GeForce RTX 4090", 0x2684, 24564, 8, "8.9", 4, 0, "geforce"),
    ("RTX 3090", "NVIDIA GeForce RTX 3090", 0x2204, 24576, 7, "8.6", 4, 4, "geforce"),
    ("RTX 2080", "NVIDIA GeForce RTX 2080 Ti", 0x1E07, 11264, 6, "7.5", 3, 2, "geforce"),
)

GENERIC: Final = Product(
    name="NVIDIA Graphics Device",
    device_id=0x20B0,
    memory_mib=40960,
    architecture=7,
    compute="8.0",
    pcie_gen=4,
    nvlink_version=4,
    features=frozenset(("ecc",)),
)
"""What stands for a model that no row knows."""


def find_product(model: str) -> Product:
    """Return the first product that the model's words name, GENERIC if they name none.

    A name counts only as a word: ``L4`` is not found in ``L40S``, but ``H20`` is in ``H20-3e``.

    >>> find_product("8x L4").name, find_product("something new").name
    ('NVIDIA L4', 'NVIDIA Graphics Device')
    """
    for words, name, device, memory, architecture, compute, gen, nvlink, features in _ROWS:
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(words)}(?![A-Za-z0-9])", model, re.IGNORECASE):
            return Product(
                name,
                device,
                memory,
                architecture,
                compute,
                gen,
                nvlink,
                frozenset(features.split()),
            )
    return GENERIC
