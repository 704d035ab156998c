"""filter over HTTP beside a handler that only parses and echoes the same bytes; what it keeps."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import msgspec

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from embedded.processes import own_command
from tests.bench.fleet import node, pod
from tests.bench.memory import resident_mib
from tests.bench.rows import Row, fit_exponent, percentile
from tests.e2e.control_plane import answers
from tests.e2e.process import Process
from topology.model import NodeTopology

_TABLE: Final = "The extender's filter, beside a handler that echoes"
_GROWTH: Final = "Growth with the number of nodes (exponent of the best fit)"


def measure(*, quick: bool, topology: NodeTopology) -> Iterator[Row]:
    """Time filter calls, alternating with echoes of the same bytes."""
    sizes = (500, 5000) if quick else (500, 1500, 5000, 15000, 50000)
    calls = 100 if quick else 300
    medians, rests = [], []
    empty = 0.0
    for size in sizes:
        ours, echo, mib = _measure_size(size, calls, topology)
        ours_p50, echo_p50 = percentile(ours, 50), percentile(echo, 50)
        medians.append(ours_p50)
        rests.append(mib)
        empty = empty or mib
        yield Row(
            table=_TABLE,
            name=f"{size:,} names, p50",
            ours=ours_p50,
            other=echo_p50,
            unit="ms",
        )
        yield Row(
            table=_TABLE,
            name=f"{size:,} names, p99",
            ours=percentile(ours, 99),
            other=percentile(echo, 99),
            unit="ms",
        )
        yield Row(
            table=_TABLE,
            name=f"{size:,} names, p50 for each 1,000 of them",
            ours=ours_p50 / size * 1000,
            unit="ms",
        )
        yield Row(table=_TABLE, name=f"{size:,} nodes, memory at rest", ours=mib, unit="MiB")
    yield Row(
        table=_GROWTH,
        name=f"filter, {sizes[0]:,} to {sizes[-1]:,} nodes",
        ours=fit_exponent(sizes, medians),
        unit="",
    )
    yield Row(
        table=_GROWTH,
        name="extender's memory for each node, between the smallest and the largest",
        ours=(rests[-1] - rests[0]) * 1024 / (sizes[-1] - sizes[0]),
        unit="KiB",
    )


def _measure_size(
    size: int, calls: int, topology: NodeTopology
) -> tuple[list[float], list[float], float]:
    folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    names = [f"n{number:05}" for number in range(size)]
    api = ApiServer()
    api.start()
    port, ops, echo_port = free_port(), free_port(), free_port()
    extender = Process(
        "extender",
        own_command(
            "extender",
            f"--kubeconfig={api.write_kubeconfig(folder / 'kubeconfig')}",
            f"--port={port}",
            f"--ops-port={ops}",
        ),
        folder / "extender.log",
    )
    echo = Process(
        "echo",
        [sys.executable, "-m", "tests.bench.echo", str(echo_port)],
        folder / "echo.log",
    )
    try:
        for name in names:
            api.store.write("nodes", node(name, topology))
        extender.start()
        echo.start()
        extender.wait_for(lambda: answers(f"http://127.0.0.1:{ops}/readyz"), 120)
        echo.wait_for(lambda: _listens(echo_port), 30)
        ours, other = _time_calls(port, echo_port, names, calls)
        pid = extender.pid
        assert pid is not None
        return ours, other, resident_mib(pid)
    finally:
        extender.stop(signal.SIGKILL)
        echo.stop(signal.SIGKILL)
        api.stop()


def _time_calls(
    port: int, echo_port: int, names: list[str], calls: int
) -> tuple[list[float], list[float]]:
    ours, other = HTTPConnection("127.0.0.1", port), HTTPConnection("127.0.0.1", echo_port)
    ours_ms: list[float] = []
    other_ms: list[float] = []
    for number in range(calls):
        asked = pod(f"p{number}", 1, "bench")
        asked["metadata"] |= {"uid": f"u{number}", "namespace": "default"}
        body = msgspec.json.encode({"Pod": asked, "NodeNames": names})
        for connection, times in ((ours, ours_ms), (other, other_ms)):
            begun = time.perf_counter()
            connection.request("POST", "/filter", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            times.append((time.perf_counter() - begun) * 1000)
            assert answer.status == 200, content[:300]
            assert msgspec.json.decode(content)["NodeNames"], content[:300]
    return ours_ms, other_ms


def _listens(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True
