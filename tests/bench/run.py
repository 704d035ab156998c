"""`make bench`: every claim of speed beside a peer or a limit, measured in one run.

Sections that need what is not here (Go, root) say so and are left out.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.discovered import discover_machine
from tests.bench import choice, engine, extender, plugin, recording
from tests.bench.fleet import MACHINE
from tests.bench.rows import Row, as_json, as_markdown, show
from tests.e2e import components, sandbox
from tests.e2e.errors import MissingError
from topology.catalogue import load_machine

Section = Callable[[bool], Iterator[Row]]


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
    "extender": lambda quick: extender.measure(
        quick=quick, topology=discover_machine(load_machine(MACHINE))
    ),
    "explain": lambda quick: recording.rows(quick=quick),
    "control-plane": _control_plane,
}


def describe_machine() -> dict[str, str]:
    """Return what stands above the tables: processor, cores, versions."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    import os

    about = {
        "processor": model,
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "Linux": platform.release().split("-")[0],
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "Kubernetes": components.version(),
    }
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return about | ({"commit": commit} if commit else {})


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show; 1 if a goal is missed and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    given = parser.parse_args(words)
    unknown = set(given.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    about = describe_machine()
    console = Console()
    progress = Console(stderr=True)
    rows: list[Row] = []
    for name in given.sections or SECTIONS:
        progress.print(f"measuring: {name}")
        try:
            measured = list(SECTIONS[name](given.quick))
        except MissingError as error:
            progress.print(f"left out: {name}: {error}")
            continue
        rows += measured
        show(measured, console)
    if given.json:
        given.json.write_bytes(as_json(rows, about))
    if given.markdown:
        given.markdown.write_text(as_markdown(rows, about))
    missed = [row for row in rows if row.reached is False]
    for row in missed:
        progress.print(
            f"missed: {row.table}: {row.name}: {row.judged:.3g}, {row.wanted} {row.goal}"
        )
    return 1 if missed and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
