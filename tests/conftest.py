"""The option that more than one folder of tests understands."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--real``."""
    parser.addoption(
        "--real",
        action="store_true",
        help="run the contract's cases on real Kubernetes components, too, and print a table",
    )
