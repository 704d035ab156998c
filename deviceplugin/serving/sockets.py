"""Unix socket files: names of our own, who they belong to, and whether somebody listens."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Final

import msgspec

PREFIX: Final = "gputopo-"
LONGEST_PATH: Final = 107
"""Bytes of a unix socket's path that Linux takes."""

_OURS = re.compile(r"gputopo-[0-9]+-[0-9a-f]+-[0-9]+\.sock")


class Identity(msgspec.Struct, frozen=True):
    """Tells a file from its successor at the same path."""

    device: int
    inode: int
    changed_ns: int


def identify(path: Path) -> Identity | None:
    """Return which file is at a path now, None if there is none.

    An inode number may be given again at once, so the time of its last change counts too.
    """
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return Identity(status.st_dev, status.st_ino, status.st_ctime_ns)


def own_name(pid: int, token: str, number: int) -> str:
    """Return the file name of a process's `number`-th socket.

    In a container the pid is always the same, and kubelets after 1.36 tell plugin instances
    apart by this name: the token must differ from process to process.
    """
    return f"{PREFIX}{pid}-{token}-{number}.sock"


def new_token() -> str:
    """Return eight random hexadecimal digits."""
    return os.urandom(4).hex()


def answers(path: Path, timeout: float = 0.2) -> bool:
    """Return whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def sweep(folder: Path) -> tuple[str, ...]:
    """Remove the sockets that former processes of ours left; return their names.

    A socket that somebody still answers belongs to a process that is alive.
    """
    removed: list[str] = []
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ()
    for name in names:
        if _OURS.fullmatch(name) and not answers(folder / name):
            try:
                (folder / name).unlink()
            except OSError:
                continue
            removed.append(name)
    return tuple(removed)
