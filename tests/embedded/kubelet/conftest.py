"""Nodes and plugins that end with the test. Roots are short: socket paths have 107 bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.kubelet.node import Node
from tests.embedded.kubelet.plugin import Plugin, healthy

MakeNode = Callable[..., Node]
MakePlugin = Callable[..., Plugin]


@pytest.fixture
def root() -> Iterator[Path]:
    """Make a directory with a short name."""
    path = Path(tempfile.mkdtemp(prefix="gt", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_node(root: Path) -> Iterator[MakeNode]:
    """Make nodes whose kubelet runs; keywords are kubelet settings."""
    made: list[Node] = []

    def make(**settings: Any) -> Node:
        made.append(Node(root / str(len(made)), **settings).start())
        return made[-1]

    yield make
    for each in made:
        each.kubelet.stop()


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """Make a node as it comes: topology policy none, kubelet 1.36's ways."""
    return make_node()


@pytest.fixture
def make_plugin() -> Iterator[MakePlugin]:
    """Make plugins that are registered, on a given node."""
    made: list[Plugin] = []

    def make(on: Node, devices: Any = None, *, register: bool = True, **script: Any) -> Plugin:
        listed = healthy("a", "b", "c", "d") if devices is None else devices
        made.append(Plugin(on.directory, listed, **script).serve())
        if register:
            made[-1].register()
            total = len(listed)
            well = sum(device.health == "Healthy" for device in listed)
            on.wait_numbers(total, well, made[-1].resource)
        return made[-1]

    yield make
    for each in made:
        each.stop()
