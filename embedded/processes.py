"""Our real daemons as child processes: started, watched, started again when they die.

What kubelet or a Deployment would do on a cluster: a process that ends is started again after a
back-off that grows while it keeps dying at once, unless we stop it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

_log = structlog.get_logger("demo.processes")

_FIRST_BACKOFF: Final = 0.2
_LAST_BACKOFF: Final = 5.0
# A process that lived this many seconds was well; the next back-off is the first one again.
_WELL_AFTER: Final = 5.0
_TAIL_BYTES: Final = 4000


class Daemon:
    """One daemon, kept alive by a thread of its own, and its log file.

    `starts` counts its lives.
    """

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
        self.starts = 0
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"daemon {name}", daemon=True)

    def start(self) -> None:
        """Start the process, and again whenever it ends."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process that runs now, None between two lives."""
        with self._lock:
            process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def kill(self) -> None:
        """Kill the process without a warning; it is started again."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()

    def ask_stop(self) -> None:
        """Send SIGTERM and do not start it again."""
        self._stopping.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self, deadline: float) -> bool:
        """Wait until it has ended, killing it at the `deadline` (monotonic); False if killed."""
        if self._thread.ident is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            return True
        self.kill()
        self._thread.join(5)
        return False

    def tail(self) -> str:
        """Return the end of its log."""
        try:
            text = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        return text.strip()

    def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        while not self._stopping.is_set():
            begun = time.monotonic()
            status = self._live_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - begun > _WELL_AFTER:
                backoff = _FIRST_BACKOFF
            _log.info("ended, starts again", daemon=self.name, status=status, pause=backoff)
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF)

    def _live_once(self) -> int:
        with self.log.open("ab") as log, self._lock:
            if self._stopping.is_set():
                return 0
            # A session of its own: Ctrl-C reaches us alone, and we stop things in order.
            process = self._process = subprocess.Popen(  # noqa: S603 -- our own command
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
            self.starts += 1
        return process.wait()


def own_command(*arguments: str) -> list[str]:
    """Return the command line of our own `gputopo`, run by this interpreter.

    Where util-linux is there, the child dies with us even if we are killed without a warning.
    """
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    return [*guard, sys.executable, "-m", "cli.main", *arguments]
