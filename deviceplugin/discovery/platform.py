"""Machines on which NVML is not what speaks for the GPUs, recognised and refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deviceplugin.errors import PlatformError

_WSL: Final = "dev/dxg"
"""How Windows shows its GPUs to Linux; there are no /dev/nvidiaN then."""
_FAMILY: Final = "devices/soc0/family"


def check_platform(root: Path, sysfs_root: Path) -> None:
    """Raise PlatformError on WSL and Tegra; `root` is the folder of the host's /dev."""
    if (root / _WSL).exists():
        raise PlatformError("WSL is not supported: its GPUs have no device nodes of their own")
    try:
        family = (sysfs_root / _FAMILY).read_text(errors="replace").strip()
    except OSError:
        return
    if family == "Tegra":
        raise PlatformError("Tegra is not supported: its GPU is none of PCI's")
