"""The extender as a process beside an embedded API server, with the calls that it gets."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from embedded.processes import own_command
from scheduler.extender.handlers import LEAVING
from tests.bench.fleet import pod
from tests.bench.memory import resident_mib
from tests.e2e.control_plane import answers
from tests.e2e.process import Process

NAMESPACE: Final = "default"
_HISTORY: Final = 50_000
"""Events that the API server keeps: a watch may lag behind by all that a round writes."""


class ExtenderWorld:
    """An API server with `nodes`, and the extender that has listed them; `with` ends both."""

    def __init__(self, nodes: Iterable[dict[str, Any]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self.api = ApiServer(history=_HISTORY)
        self.api.start()
        for node in nodes:
            self.api.store.write("nodes", node)
        self.port, ops = free_port(), free_port()
        self.process = Process(
            "extender",
            own_command(
                "extender",
                f"--kubeconfig={self.api.write_kubeconfig(self._folder / 'kubeconfig')}",
                f"--port={self.port}",
                f"--ops-port={ops}",
                f"--explain-port={free_port()}",
            ),
            self._folder / "extender.log",
        )
        try:
            self.process.start()
            self.process.wait_for(lambda: answers(f"http://127.0.0.1:{ops}/readyz"), 120)
        except BaseException:
            self.close()
            raise
        self.caller = Caller(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both."""
        self.process.stop(signal.SIGKILL)
        self.api.stop()
        shutil.rmtree(self._folder)

    def resident_mib(self) -> float:
        """Return what the extender keeps."""
        return resident_mib(self._pid())

    def cpu_seconds(self) -> float:
        """Return the processor time that the extender has used so far."""
        tasks = Path(f"/proc/{self._pid()}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def await_node(self, name: str, *, full: bool = False, seconds: float = 60.0) -> None:
        """Wait until the extender has heard of a node, or that it is full."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self.caller.call("filter", filter_body("marker", [name]))
            refused = answer["FailedAndUnresolvableNodes"] or answer["Error"].endswith(LEAVING)
            if refused if full else answer["NodeNames"]:
                return
            time.sleep(0.01)
        raise TimeoutError(f"the extender has not heard of {name} within {seconds:g} s")

    def _pid(self) -> int:
        pid = self.process.pid
        assert pid is not None, self.process.tail()
        return pid


class Caller:
    """One connection to a handler of kube-scheduler's calls."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def time(self, verb: str, body: bytes) -> tuple[float, bytes]:
        """Call; return milliseconds and the answer."""
        begun = time.perf_counter()
        self._connection.request("POST", f"/{verb}", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        taken = (time.perf_counter() - begun) * 1000
        assert answer.status == 200, content[:300]
        return taken, content

    def call(self, verb: str, body: bytes) -> Any:
        """Call; return the answer read."""
        return msgspec.json.decode(self.time(verb, body)[1])


def asked_pod(name: str, gpus: int = 1) -> dict[str, Any]:
    """Return a pod as kube-scheduler sends it; its uid is its name."""
    asked = pod(name, gpus, "bench")
    asked["metadata"] |= {"uid": name, "namespace": NAMESPACE}
    return asked


def filter_body(name: str, names: Sequence[str], gpus: int = 1) -> bytes:
    """Return a filter or prioritize call with node names."""
    return msgspec.json.encode({"Pod": asked_pod(name, gpus), "NodeNames": names})


def start_echo() -> tuple[Process, int]:
    """Start the handler that only parses and echoes; return it and its port."""
    port = free_port()
    echo = Process("echo", [sys.executable, "-m", "tests.bench.echo", str(port)], Path("/dev/null"))
    echo.start()
    echo.wait_for(lambda: _listens(port), 30)
    return echo, port


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
