"""The ports that the embedded cluster and the tests give to daemons."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from embedded.ports import free_port

_MANY = 120
_PRINT = f"""
import sys
from embedded.ports import free_port
for _ in range({_MANY}): print(free_port(), flush=True)
sys.stdin.read()
"""


def test_no_outgoing_connection_is_given_such_a_port() -> None:
    """They lie outside the range from which the kernel serves connections."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    assert not [port for port in (free_port() for _ in range(_MANY)) if first <= port <= last]


def test_a_port_is_given_once_to_whatever_process_and_thread() -> None:
    """Several processes that live at once, and threads in one, share no port."""
    drawing = [
        subprocess.Popen(
            [sys.executable, "-c", _PRINT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as threads:
        ports = list(threads.map(lambda _: free_port(), range(_MANY)))
    for process in drawing:
        assert process.stdout is not None
        ports += [int(process.stdout.readline()) for _ in range(_MANY)]
    for process in drawing:
        process.communicate()
        assert process.returncode == 0

    assert len(set(ports)) == len(ports) == 5 * _MANY


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    """The next ones of the block are tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port() + 1))

        assert free_port() != taken.getsockname()[1]
