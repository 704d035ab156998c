"""What of the driver a container needs: its libraries, tools and sockets, looked up on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

LIBRARY_FOLDERS: Final = (
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
)
"""Where distributions put the driver's libraries, below its root."""

TOOLS: Final = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
)
SOCKETS: Final = ("run/nvidia-persistenced/socket", "run/nvidia-fabricmanager/socket")
FIRMWARE: Final = "lib/firmware/nvidia"

_NVML: Final = re.compile(r"libnvidia-ml\.so\.([0-9]+(?:\.[0-9]+)+)")


class DriverFiles(msgspec.Struct, frozen=True):
    """The driver's files, by their paths below its root with a leading slash.

    `libraries` are the files that bear the driver's `version`; `links` are names that programs
    load them by, as (link, target). All are empty where no driver is seen.
    """

    version: str = ""
    libraries: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()


class DriverReader:
    """Reads the driver again only when one of its folders has changed."""

    def __init__(self) -> None:
        self._seen: tuple[Path, tuple[int, ...]] | None = None
        self._files = DriverFiles()

    def read(self, root: Path) -> DriverFiles:
        """Return the files below `root`; a few microseconds while nothing changes."""
        seen = root, tuple(_changed(root / below) for below in (*LIBRARY_FOLDERS, "usr/bin", "run"))
        if seen != self._seen:
            self._files = read_driver(root)
            self._seen = seen
        return self._files


def read_driver(root: Path) -> DriverFiles:
    """Look for the driver below `root`; whatever cannot be read is not there."""
    folder, version = next(_versions(root), (None, ""))
    if folder is None:
        return DriverFiles()
    names = _entries(folder)
    libraries = [name for name in names if name.endswith(f".so.{version}")]
    links = [
        (_below(root, folder / name), target)
        for name in names
        if (target := _link_to(folder / name)) in libraries and target is not None
    ]
    found = [f"usr/bin/{tool}" for tool in TOOLS if (root / "usr/bin" / tool).is_file()]
    found += [one for one in SOCKETS if (root / one).exists()]
    firmware = f"{FIRMWARE}/{version}"
    found += [f"{firmware}/{name}" for name in _entries(root / firmware) if name.endswith(".bin")]
    return DriverFiles(
        version=version,
        libraries=tuple(_below(root, folder / name) for name in libraries),
        links=tuple(links),
        others=tuple(f"/{one}" for one in found),
    )


def _versions(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders that have NVML, with the version in its name."""
    for below in LIBRARY_FOLDERS:
        for name in _entries(root / below):
            match = _NVML.fullmatch(name)
            if match is not None:
                yield root / below, match[1]


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in folder.iterdir())
    except OSError:
        return []


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _below(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def _link_to(path: Path) -> str | None:
    """Return the name that a link beside a library points to, None if it is no such link."""
    try:
        target = str(path.readlink())
    except OSError:
        return None
    return None if os.sep in target else target
