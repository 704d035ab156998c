"""The parts of `make bench`, by name: each yields rows, and raises MissingError where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from rich.console import Console

from cli.discovered import discover_machine
from tests.bench import (
    choice,
    engine,
    extender,
    placement,
    plugin,
    recording,
    watching,
    whole_nodes,
)
from tests.bench.fleet import MACHINE
from tests.bench.rows import Row
from tests.e2e import components, sandbox
from topology.catalogue import load_machine

Section = Callable[[bool], Iterator[Row]]
"""Takes whether to be quick."""


def _on_nodes(measure: Callable[..., Iterator[Row]]) -> Section:
    """Make a section of what needs the topology of a node."""
    return lambda quick: measure(quick=quick, topology=discover_machine(load_machine(MACHINE)))


def _control_plane(quick: bool) -> Iterator[Row]:
    """Run in the sandbox: it needs real components and free ports."""
    sandbox.check()
    components.build(Console(stderr=True))
    command = [sys.executable, "-m", "tests.e2e.sandbox", sys.executable, "-m"]
    command += ["tests.bench.control_plane", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    yield from (msgspec.json.decode(line, type=Row) for line in done.stdout.splitlines())


SECTIONS: Final[dict[str, Section]] = {
    "choice": lambda quick: choice.measure(quick=quick),
    "plugin": lambda quick: plugin.measure(quick=quick),
    "engine": lambda quick: engine.rows(quick=quick),
    "extender": _on_nodes(extender.measure),
    "whole-nodes": _on_nodes(whole_nodes.measure),
    "watching": _on_nodes(watching.measure),
    "explain": lambda quick: recording.rows(quick=quick),
    "placement": lambda quick: placement.measure(quick=quick),
    "control-plane": _control_plane,
}
