"""What can go wrong inside the kubelet.

KubeletError(Exception)
├── AdmissionError       a pod is refused: reason and message of its status
├── AllocationError      the device manager cannot give what a container asks for
├── PluginError          a device plugin's RPC failed, or its endpoint is stopped
└── RegistrationError    a Register call that kubelet refuses
"""

from __future__ import annotations


class KubeletError(Exception):
    """The root of this package's errors."""


class AdmissionError(KubeletError):
    """A pod is refused for good. `reason` and `message` go into its status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class AllocationError(KubeletError):
    """The device manager cannot give a container what it asks for."""


class PluginError(KubeletError):
    """A call to a device plugin failed; the text is what kubelet quotes."""


class RegistrationError(KubeletError):
    """A Register call that kubelet refuses; the text is the answer's details."""
