"""What holds for all tests: one option, no property is a matter of time, logs stand apart."""

from __future__ import annotations

import sys

import pytest
import structlog
from hypothesis import settings

# A busy machine is not a counterexample; pytest's timeout ends what hangs. The examples are the
# same in each run: what chance finds, `make fuzz` finds, and not who lands something else.
settings.register_profile("gputopo", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=1000)
settings.load_profile("gputopo")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--real``."""
    parser.addoption(
        "--real",
        action="store_true",
        help="run the contract's cases on real Kubernetes components, too, and print a table",
    )


@pytest.fixture(autouse=True)
def _logs_apart() -> None:
    """Keep what daemons in this process log out of what a command prints: they go on meanwhile."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
