"""What the monitor's tests have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deviceplugin.guarding.watched import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world whose NVML is installed."""
    world = World(tmp_path)
    world.mock.install()
    yield world
    world.stop()
    world.mock.uninstall()
