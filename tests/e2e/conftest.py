"""What the cases on real components share: a control plane with the bundle's objects in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.control_plane import ControlPlane

BUNDLE = Path(__file__).parents[2] / "daemonset" / "overlays" / "second-scheduler"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder with a short name: the path of a unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Return an API server that has the bundle's objects; nothing runs them."""
    plane = ControlPlane(folder, nodes=("n1", "n2"))
    plane.start()
    try:
        plane.kubectl("apply", "-k", str(BUNDLE))
        yield plane
    finally:
        plane.stop()
