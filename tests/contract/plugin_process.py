"""One device plugin process of ours, as a host process: its life, its metrics, its probes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from embedded.ports import free_port
from embedded.processes import own_command

END_SECONDS = 20.0
LOG_TAIL = 4000


class PluginProcess:
    """A running plugin; `options` are the command line's, `log` gets what it says.

    `environment` is ours by default.
    """

    def __init__(
        self,
        options: Mapping[str, object],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port = free_port()
        self._log = log
        told = {**options, "ops-host": "127.0.0.1", "ops-port": self._port}
        command = own_command(
            "device-plugin", *(f"--{name}={value}" for name, value in told.items())
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        self._process.send_signal(number)
        self._process.wait(END_SECONDS)

    def ready(self) -> bool:
        """Return whether the readiness probe passes."""
        try:
            self._ask("readyz")
        except (URLError, OSError):
            return False
        return True

    def count(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels. Fails if there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self._ask("metrics"))
            for sample in family.samples
            if sample.name == f"gputopo_plugin_{name}" and labels.items() <= sample.labels.items()
        ]
        assert found, f"the plugin has no {name} {labels}"
        return sum(found)

    def tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text()[-LOG_TAIL:]

    def _ask(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=5) as answer:
            return str(answer.read().decode())
