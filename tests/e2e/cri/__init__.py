"""A container runtime for a real kubelet that starts nothing, and remembers what it was told to."""

from __future__ import annotations

from tests.e2e.cri.runtime import FakeRuntime
from tests.e2e.cri.views import ContainerView

__all__ = ["ContainerView", "FakeRuntime"]
