"""Helm, which renders the chart: built once from its own Go module, kept by version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.e2e.components import cache_folder, find_go, progress, run_go
from tests.e2e.errors import MissingError

MODULE: Final = Path(__file__).with_name("helm")
_SOURCE: Final = "helm.sh/helm/v4"


def version() -> str:
    """Return the version that is built, without its v."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s*{re.escape(_SOURCE)} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise MissingError(f"{MODULE / 'go.mod'} requires no {_SOURCE}")
    return found[1]


def binary() -> Path:
    """Return where Helm is, or will be."""
    return cache_folder() / "helm" / f"v{version()}" / "helm"


def missing() -> bool:
    """Return whether it is still to be built."""
    return not binary().is_file()


def build(console: Console) -> Path:
    """Build it unless it is there; return its path. Raises MissingError."""
    if missing():
        go = find_go()
        binary().parent.mkdir(parents=True, exist_ok=True)
        # A build that was interrupted must not look like a finished one.
        unfinished = binary().with_name(".helm")
        options = ("-trimpath", "-ldflags", "-s -w", "-o", str(unfinished))
        with progress(console, f"building helm {version()}"):
            run_go([go, "build", *options, f"{_SOURCE}/cmd/helm"], MODULE)
        unfinished.rename(binary())
    return binary()
