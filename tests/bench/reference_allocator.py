"""The reference allocator itself, built from its own module, asked through a small program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.e2e.components import cache_folder
from tests.e2e.errors import MissingError
from topology.links import Level
from topology.model import TopologyClass

MODULE: Final = Path(__file__).with_name("reference")
# The allocator's own numbers for PCIe levels; n NVLinks are 6 + n, and it knows no more than 18.
_LEVELS: Final = {Level.SYS: 1, Level.NODE: 2, Level.PHB: 3, Level.PXB: 4, Level.PIX: 5}
_NVLINKS: Final = 6
_MOST_NVLINKS: Final = 18


class Asked(msgspec.Struct, frozen=True):
    """`size` GPUs out of those `available`, in that order."""

    available: tuple[int, ...]
    size: int


class Answer(msgspec.Struct, frozen=True):
    """What was chosen, how long each round took; `crash` if it fell over."""

    gpus: tuple[int, ...] | None
    nanoseconds: tuple[int, ...] | None = None
    crash: str = ""


def version() -> str:
    """Return the version that is built, with its v."""
    words = (MODULE / "go.mod").read_text(encoding="utf-8").split()
    return words[words.index("github.com/NVIDIA/go-gpuallocator") + 1]


def build() -> Path:
    """Build the program once; return its path. Raises MissingError if that cannot be."""
    program = cache_folder() / "bench" / "reference-allocator"
    sources = [MODULE / name for name in ("main.go", "go.mod", "go.sum")]
    if program.exists() and program.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return program
    go = shutil.which("go")
    if go is None:
        raise MissingError("go is not on the PATH: the reference allocator is built with it")
    program.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=MODULE,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"the reference allocator does not build: {done.stderr[-500:]}")
    return program


def ask(
    cls: TopologyClass, requests: Sequence[Asked], *, rounds: int, seconds: float
) -> list[Answer]:
    """Ask each of the requests up to `rounds` times, up to `seconds` each."""
    links = []
    for one in range(cls.count):
        for other in range(one + 1, cls.count):
            types = [_LEVELS[cls.pcie[one][other]]]
            # Through a switch it sees no NVLink: the far end of every link is the switch.
            switched = cls.switch[one] >= 0 and cls.switch[one] == cls.switch[other]
            if cls.nvlinks[one][other] and not switched:
                types.append(_NVLINKS + min(cls.nvlinks[one][other], _MOST_NVLINKS))
            links.append({"one": one, "other": other, "types": types})
    body = {
        "gpus": cls.count,
        "links": links,
        "requests": requests,
        "rounds": rounds,
        "seconds": seconds,
    }
    done = subprocess.run(
        [str(build())], input=msgspec.json.encode(body), capture_output=True, check=True
    )
    return msgspec.json.decode(done.stdout, type=list[Answer])
