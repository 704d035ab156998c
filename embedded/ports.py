"""TCP ports for daemons that are started with a port number and must find it free.

A port that the kernel proposes (bind to 0, look, close) lies among those that it also gives to
outgoing connections: until the daemon listens, and again each time it is started anew, any
connection of the machine may take it. So the ports here come from below that range, and a
process takes them from blocks that it alone uses.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Outgoing connections get ports of this range (man 7 ip), by default 32768 to 60999.
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 15_000
_HIGHEST: Final = 30_000
_BLOCK: Final = 50

_lock = threading.Lock()
_ports: dict[int, Iterator[int]] = {}


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free, and is given to nobody else.

    Nobody else: no other caller in this process or in another one of this network namespace, for
    as long as this process lives.
    """
    with _lock:
        # By process: a fork must not go on with the blocks of its parent.
        ports = _ports.setdefault(os.getpid(), _own_ports())
        return next(port for port in ports if _is_free(port))


def _own_ports() -> Iterator[int]:
    """Yield the ports of block after block; when all blocks are taken, its own ones again."""
    own: list[int] = []
    blocks = list(range(_LOWEST, _end(), _BLOCK))
    random.shuffle(blocks)
    for block in blocks:
        claim = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name is bound at most once in a network namespace, as a port is, and goes
            # with its process.
            claim.bind(f"\0gputopo-ports-{block}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # open until the process ends
        own.extend(range(block, block + _BLOCK))
        yield from range(block, block + _BLOCK)
    yield from itertools.cycle(own)


def _end() -> int:
    try:
        first_outgoing = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _HIGHEST
    # A machine that gives nearly all ports to connections leaves no range of ours.
    return min(_HIGHEST, first_outgoing) if first_outgoing > _LOWEST + _BLOCK else _HIGHEST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
