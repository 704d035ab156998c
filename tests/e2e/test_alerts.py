"""Prometheus' own tool reads the alerts, and runs their unit tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "daemonset" / "monitoring"
PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    ("words", "file"),
    [(("check", "rules"), "alerts.yaml"), (("test", "rules"), "alerts_test.yaml")],
)
def test_promtool_takes_the_alerts(words: tuple[str, str], file: str) -> None:
    """Every expression is PromQL, and each tested alert fires when it should, with its words."""
    run = subprocess.run(
        [str(PROMTOOL), *words, file], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
