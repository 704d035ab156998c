"""What holds for all tests: one option, and that no property is a matter of time."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A busy machine is not a counterexample; pytest's timeout ends what hangs.
settings.register_profile("gputopo", deadline=None)
settings.load_profile("gputopo")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--real``."""
    parser.addoption(
        "--real",
        action="store_true",
        help="run the contract's cases on real Kubernetes components, too, and print a table",
    )
