"""What the publisher's tests have in common."""

from __future__ import annotations

import pytest

from tests.deviceplugin.publishing.node import World


@pytest.fixture
def world() -> World:
    """Return a world in which nothing was published yet."""
    return World()
