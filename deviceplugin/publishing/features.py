"""Writes the node's labels where node-feature-discovery picks them up: a file on the host."""

from __future__ import annotations

from pathlib import Path

import structlog

from deviceplugin.publishing.labels import Hardware, labels_of, render
from deviceplugin.resources.stock import Stock

_log = structlog.get_logger("deviceplugin.features")


class FeatureFile:
    """Keeps the file true. One thread at a time.

    It stays when the plugin ends: what it says is of the hardware, and labels that vanish with each
    update of the plugin would move pods. A file that cannot be written is told once.
    """

    def __init__(self, path: Path, sysfs_root: Path) -> None:
        self._path = path
        self._sysfs = sysfs_root
        self._text = ""
        self.problem = ""

    def put(self, stock: Stock) -> None:
        """Write what is to be said now, if it is another than before."""
        text = render(labels_of(stock, read_hardware(stock, self._sysfs)))
        if not text or text == self._text:
            return
        try:
            self._write(text)
        except OSError as error:
            if not self.problem:
                _log.warning("the feature file cannot be written", problem=str(error))
            self.problem = str(error)
            return
        self._text, self.problem = text, ""
        _log.info("labels written", path=str(self._path), labels=text.count("\n"))

    def _write(self, text: str) -> None:
        # NFD reads whenever it likes: never half a file. It passes over names with a dot in front.
        fresh = self._path.with_name(f".{self._path.name}.new")
        fresh.write_text(text, encoding="ascii")
        fresh.replace(self._path)


def read_hardware(stock: Stock, sysfs_root: Path) -> Hardware:
    """Read what sysfs tells beside the GPUs; what it does not tell is left out."""
    devices = sysfs_root / "bus" / "pci" / "devices"
    return Hardware(
        machine=_read(sysfs_root / "class" / "dmi" / "id" / "product_name"),
        graphics=frozenset(
            gpu.uuid
            for gpu in stock.inventory.topology.gpus
            if _read(devices / gpu.pci / "class").startswith("0x0300")
        ),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
