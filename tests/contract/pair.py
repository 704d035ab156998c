"""One kube-scheduler and its extender, with a gate on each of their ways."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from embedded.processes import own_command
from tests.contract.http_gate import HttpGate
from tests.contract.node_parts import write_kubeconfig
from tests.contract.world import RESOURCE
from tests.waiting import wait_until

BIND_SECONDS: Final = 2.0
HTTP_SECONDS: Final = 3
"""The extender's own deadline, and kube-scheduler's for it: short, and in the order that they must
have. Those of the manifests are 4 and 5."""


class ApiAccess(msgspec.Struct, frozen=True):
    """How a daemon reaches the API server: where it is, whom to trust, and who it is itself."""

    url: str
    token: str
    trust: ssl.SSLContext | None = None


class KubeScheduler(Protocol):
    """A kube-scheduler that was started."""

    @property
    def alive(self) -> bool:
        """Whether it still runs: it ends itself when it has lost its Lease."""

    def kill(self) -> None:
        """End it at once: it writes nothing more and keeps its Lease."""

    def stop(self) -> None:
        """End it in order."""


class Pair:
    """A pair. `launch` starts its kube-scheduler: of a kubeconfig and the extender's URL."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        scheduler: ApiAccess,
        extender: ApiAccess,
        launch: Callable[[Path, str], KubeScheduler],
    ) -> None:
        self.name = name
        self._folder = folder
        folder.mkdir()
        self.scheduler_gate = HttpGate(scheduler.url, scheduler.trust, scheduler.token)
        self.extender_gate = HttpGate(extender.url, extender.trust, extender.token)
        self._reserved = [_reserve() for _ in range(3)]
        ports = (held.getsockname()[1] for held in self._reserved)
        self._port, self._ops_port, self._explain_port = ports
        self.verbs_gate = HttpGate(f"http://127.0.0.1:{self._port}")
        self._kubeconfigs = {
            who: write_kubeconfig(folder / f"{who}.kubeconfig", gate.port)
            for who, gate in (("scheduler", self.scheduler_gate), ("extender", self.extender_gate))
        }
        self._config = folder / "extender.yaml"
        self._config.write_bytes(msgspec.yaml.encode({"bind_timeout_seconds": BIND_SECONDS}))
        self._launch = launch
        self._extender: subprocess.Popen[bytes] | None = None
        self._scheduler: KubeScheduler | None = None

    @property
    def gates(self) -> tuple[HttpGate, ...]:
        """All three."""
        return self.scheduler_gate, self.extender_gate, self.verbs_gate

    @property
    def alive(self) -> bool:
        """Whether both run."""
        scheduler = self._scheduler
        return self._extender is not None and scheduler is not None and scheduler.alive

    def start(self) -> None:
        """Start what does not run. The extender's readiness is not waited for."""
        if self._extender is None:
            self._extender = self._start_extender()
        if self._scheduler is not None and not self._scheduler.alive:
            self._scheduler.kill()
            self._scheduler = None
        if self._scheduler is None:
            self._scheduler = self._launch(self._kubeconfigs["scheduler"], self.verbs_gate.url)

    def ready(self) -> bool:
        """Tell whether the extender's readiness probe passes."""
        try:
            with urlopen(f"http://127.0.0.1:{self._ops_port}/readyz", timeout=5):
                return True
        except (URLError, OSError):
            return False

    def wait_ready(self) -> None:
        """Wait until the extender is ready."""
        try:
            wait_until(self.ready, timeout=30, what=f"the extender of pair {self.name}")
        except AssertionError as error:
            error.add_note(self.log()[-4000:])
            raise

    def kill(self) -> None:
        """End both at once."""
        self.kill_extender()
        if self._scheduler is not None:
            self._scheduler.kill()
            self._scheduler = None

    def kill_extender(self) -> None:
        """End the extender at once."""
        self._end_extender(signal.SIGKILL)

    def stop(self) -> None:
        """End both in order, and the gates."""
        for gate in self.gates:
            gate.release()
        if self._scheduler is not None:
            self._scheduler.stop()
            self._scheduler = None
        # First the gates: the extender waits for those who are still connected.
        for gate in self.gates:
            gate.close()
        self._end_extender(signal.SIGTERM)
        for held in self._reserved:
            held.close()

    def count(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels, such as ``filter_total``."""
        with urlopen(f"http://127.0.0.1:{self._ops_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"gputopo_extender_{name}" and labels.items() <= sample.labels.items()
        ]
        assert found, f"the extender has no {name} {labels}"
        return sum(found)

    def explain(self, path: str) -> Any:
        """Ask the extender's explain API."""
        with urlopen(f"http://127.0.0.1:{self._explain_port}{path}", timeout=5) as answer:
            return json.load(answer)

    def log(self) -> str:
        """Return what the extender has said."""
        return (self._folder / "extender.log").read_text()

    def _start_extender(self) -> subprocess.Popen[bytes]:
        options = {
            "kubeconfig": self._kubeconfigs["extender"],
            "config": self._config,
            "resource": RESOURCE,
            "port": self._port,
            "ops-host": "127.0.0.1",
            "ops-port": self._ops_port,
            "explain-port": self._explain_port,
        }
        command = own_command(
            "extender", *(f"--{option}={value}" for option, value in options.items())
        )
        with (self._folder / "extender.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _end_extender(self, number: signal.Signals) -> None:
        if self._extender is not None:
            self._extender.send_signal(number)
            self._extender.wait(20)
            self._extender = None


def _reserve() -> socket.socket:
    """Hold a port for the extender's lives: nobody else is given it, and it may still listen."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
