"""A cluster with the bundle installed, for all cases; what it wrote is kept when one fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.images.archives import build_all
from tests.e2e.pods.bundle import OVERLAY, Bundle, check_books, readme_example
from tests.e2e.pods.cluster import PodCluster

MACHINES: Final = {"n1": "dgx1-v100", "n2": "hgx-h100-8x-ib"}
"""A mesh of NVLinks, on which sets differ, and a machine with a switch; eight GPUs each."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Say with a failure where the logs are."""
    bundle = getattr(item, "funcargs", {}).get("bundle")
    if call.excinfo is not None and bundle is not None:
        call.excinfo.value.add_note(f"logs are kept in {bundle.cluster.keep_logs()}")


@contextlib.contextmanager
def install(overlay: Path) -> Iterator[Bundle]:
    """Lend the bundle, installed by kubectl in a new cluster, ready."""
    (image,) = (one["image"] for one in readme_example()["spec"]["containers"])
    cluster = PodCluster(MACHINES, build_all((f"docker.io/library/{image}",)))
    try:
        cluster.start()
        bundle = Bundle(cluster, overlay)
        bundle.install()
        yield bundle
    except BaseException as error:
        error.add_note(f"logs are kept in {cluster.keep_logs()}")
        raise
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def installed() -> Iterator[Bundle]:
    """Return the bundle on mock machines."""
    with install(OVERLAY) as bundle:
        yield bundle


@pytest.fixture
def bundle(installed: Bundle) -> Iterator[Bundle]:
    """Return the bundle with nothing running on it; after each case all books must agree."""
    yield installed
    try:
        check_books(installed)
    finally:
        installed.clear()
