"""A machine description, seen as the device plugin sees a node: through pynvml and sysfs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from deviceplugin.discovery.topology import discover
from deviceplugin.nvml.library import open_nvml
from mock_nvml import MockNvml, write_sysfs
from topology.machines import Machine
from topology.model import NodeTopology


def discover_machine(machine: Machine, seed: str = "node") -> NodeTopology:
    """Put a mock of the machine behind pynvml, write its sysfs, and run real discovery."""
    mock = MockNvml(machine, seed=seed)
    mock.install()
    try:
        with tempfile.TemporaryDirectory(prefix="gputopo-") as folder:
            write_sysfs(machine, Path(folder), seed=seed)
            with open_nvml() as nvml:
                return discover(nvml, Path(folder)).topology
    finally:
        mock.uninstall()
