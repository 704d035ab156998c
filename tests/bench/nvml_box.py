"""A mock machine behind a real libnvidia-ml.so.1, for the plugins of both makes; calls counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

from mock_nvml import MockError, MockNvml
from mock_nvml.native import SOCKET, NativeServer, build
from mock_nvml.native.build import find_compiler
from tests.e2e.errors import MissingError
from topology.catalogue import load_machine

_MEMO: Final = Path(__file__).with_name("memo.c")


class NvmlBox:
    """A machine that any program sees that is started with `environment`; `with` ends it.

    Raises MissingError without a C compiler.
    """

    def __init__(self, machine: str, seed: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._mock = MockNvml(load_machine(machine), seed=seed)
        try:
            build(self._folder)
        except MockError as error:
            raise MissingError(str(error)) from None
        self._memo = self._build_memo()
        self._server = NativeServer(self._mock.state, self._folder / SOCKET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        shutil.rmtree(self._folder)

    def environment(self, *, remembered: bool = False) -> dict[str, str]:
        """Return what a program needs to see the machine.

        `remembered` answers most of what it asks a second time within its own process, at once.
        """
        shown = {**os.environ, "LD_LIBRARY_PATH": str(self._folder)}
        return {**shown, "LD_PRELOAD": str(self._memo)} if remembered else shown

    def calls(self) -> int:
        """Return how many calls the machine has answered so far."""
        with self._mock.state.changed:
            return self._mock.state.calls.total()

    def _build_memo(self) -> Path:
        memo = self._folder / "memo.so"
        command = [find_compiler() or "cc", "-shared", "-fPIC", "-O1", "-pthread"]
        subprocess.run([*command, "-o", str(memo), str(_MEMO), "-ldl"], check=True)
        return memo
