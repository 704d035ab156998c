"""Keeps the CDI files on disk as they should be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from deviceplugin.injection.answer import VENDOR
from deviceplugin.injection.spec import Spec

_log = structlog.get_logger("deviceplugin.cdi")


class CdiFiles:
    """The files of our vendor in a folder. `problem` says why they are not as they should be.

    Each is written beside its place and renamed into it: a runtime sees the old one or the new
    one, whole. Every change writes only what differs. Where nothing was put nothing is removed:
    NVIDIA's plugin has files of the same names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ours = False
        self.problem = ""

    def path(self, name: str) -> Path:
        """Return the file of a class."""
        return self._folder / f"{VENDOR}-{name}.json"

    def put(self, specs: Mapping[str, Spec]) -> None:
        """Make the files be these and no others; a fault is noted and told once."""
        self._ours = True
        try:
            for name, spec in specs.items():
                self._write(self.path(name), spec.encode())
            self._remove_all_but({self.path(name).name for name in specs})
        except OSError as error:
            if str(error) != self.problem:
                _log.error("CDI files cannot be written", problem=str(error))
            self.problem = str(error)
        else:
            self.problem = ""

    def clear(self) -> None:
        """Remove the files, if they are ours."""
        if self._ours:
            with contextlib.suppress(OSError):
                self._remove_all_but(set())
        self._ours = False
        self.problem = ""

    def _write(self, path: Path, content: bytes) -> None:
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                return
        self._folder.mkdir(parents=True, exist_ok=True)
        # A name that ends otherwise: runtimes read every .json and .yaml of the folder.
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            fresh.write_bytes(content)
            fresh.chmod(0o644)
            fresh.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        _log.info("CDI file written", path=str(path))

    def _remove_all_but(self, names: set[str]) -> None:
        for path in self._folder.glob(f"{VENDOR}-*.json"):
            if path.name not in names:
                path.unlink(missing_ok=True)
                _log.info("CDI file removed", path=str(path))
