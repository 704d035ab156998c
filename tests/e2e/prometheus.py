"""Debian's Prometheus and node-exporters on free loopback ports; each exporter is another node."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedded.ports import free_port
from tests.e2e.process import Process

SCRAPE_SECONDS = 1

_TEXT_ONLY = ("--collector.disable-defaults", "--collector.textfile")


class Exporter:
    """A node-exporter. `labels` are what Prometheus adds to its series.

    With `text` it shows that text alone, which may be written anew: what other exporters say.
    """

    def __init__(
        self, folder: Path, name: str, labels: Mapping[str, str], text: str | None = None
    ) -> None:
        self.port = free_port()
        self.labels = dict(labels)
        self._texts = folder / f"{name}-texts"
        options = ["--web.disable-exporter-metrics"]
        if text is not None:
            self._texts.mkdir()
            options += [*_TEXT_ONLY, f"--collector.textfile.directory={self._texts}"]
            self.show(text)
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        self.process = Process(
            name, ["prometheus-node-exporter", address, *options], folder / f"{name}.log"
        )

    def show(self, text: str) -> None:
        """Show this from the next scrape on."""
        written = self._texts / "text.new"
        written.write_text(text, encoding="utf-8")
        written.rename(self._texts / "text.prom")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process.start()
        self.process.wait_for(self._answers)

    def _answers(self) -> bool:
        return _get(f"http://127.0.0.1:{self.port}/metrics") is not None


class Prometheus:
    """A Prometheus that scrapes these exporters every second."""

    def __init__(self, folder: Path, exporters: Mapping[str, Exporter]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "prometheus.yml"
        jobs = [
            {
                "job_name": name,
                "static_configs": [
                    {"targets": [f"127.0.0.1:{exporter.port}"], "labels": exporter.labels}
                ],
            }
            for name, exporter in exporters.items()
        ]
        every = f"{SCRAPE_SECONDS}s"
        settings = {"scrape_interval": every, "scrape_timeout": every}
        # JSON is YAML.
        config.write_text(json.dumps({"global": settings, "scrape_configs": jobs}))
        self.process = Process(
            "prometheus",
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            folder / "prometheus.log",
        )

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.process.start()
        self.process.wait_for(self._ready)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series of an instant query; none while it does not answer."""
        text = urllib.parse.urlencode({"query": query})
        answer = _get(f"{self.url}/api/v1/query?{text}")
        series: list[dict[str, Any]] = (
            [] if answer is None else json.loads(answer)["data"]["result"]
        )
        return series

    def _ready(self) -> bool:
        return _get(f"{self.url}/-/ready") is not None


def _get(url: str) -> bytes | None:
    """Return what is there, None for an error or nobody."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- our own server
            body: bytes = answer.read()
            return body
    except OSError:
        return None
