"""The library by which container runtimes read CDI files, in a small program of ours."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.e2e.components import cache_folder, find_go, progress, run_go

MODULE: Final = Path(__file__).with_name("cdi_files")


def binary() -> Path:
    """Return where the program is, or will be: it is kept by what it is made of."""
    parts = (MODULE / name for name in ("main.go", "go.mod", "go.sum"))
    content = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    return cache_folder() / "cdi" / content[:16] / "cdi-files"


def missing() -> bool:
    """Return whether it is still to be built."""
    return not binary().is_file()


def build(console: Console) -> Path:
    """Build it unless it is there; return its path. Raises MissingError."""
    if missing():
        go = find_go()
        binary().parent.mkdir(parents=True, exist_ok=True)
        # A build that was interrupted must not look like a finished one.
        unfinished = binary().with_name(".cdi-files")
        with progress(console, "building the reader of CDI files"):
            run_go([go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(unfinished)], MODULE)
        unfinished.rename(binary())
    return binary()
