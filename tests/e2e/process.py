"""A process of the harness: its log, its end, and what it said when it did not come up."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.e2e.errors import StartError

TAIL_BYTES = 3000
STOP_SECONDS = 20.0


class Process:
    """One process at a time, started anew as often as wished; never by itself."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs, None if none does."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it; it must not run."""
        assert self.pid is None, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, by force if a signal is not enough; nothing happens if it does not run."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            # A process that is held still hears nothing but this.
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def kill(self) -> None:
        """End it without a warning."""
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Hold it still: its sockets stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait_for(self, ready: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until it is ready. Raises StartError with the end of its log."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid is None:
                raise StartError(f"{self.name} ended:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} is not ready after {seconds:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """Return the end of its log."""
        try:
            return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""
