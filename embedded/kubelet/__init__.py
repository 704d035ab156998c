"""A kubelet for tests and the demo: real sockets and RPCs, simulated containers.

It does what a real kubelet was seen to do with device plugins, PodResources and pod admission,
including what is awkward about it; no plugin should be able to tell the difference.
"""

from __future__ import annotations

from embedded.kubelet.containers import ContainerView
from embedded.kubelet.journal import Entry
from embedded.kubelet.kubelet import Kubelet

__all__ = ["ContainerView", "Entry", "Kubelet"]
