"""The real Kubernetes components: built once from their own Go module, kept by version.

The version stands in one place, the `require` line of ``components/go.mod``; change it, and all
that belongs to it, with ``python -m tests.e2e.components --version 1.36.5``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.e2e.errors import MissingError

MODULE: Final = Path(__file__).with_name("components")
NAMES: Final = (
    "kubectl",
    "kube-apiserver",
    "kubelet",
    "kube-scheduler",
    "kube-controller-manager",
)
_SOURCE: Final = "k8s.io/kubernetes"


def cache_folder() -> Path:
    """Return where what took long to make is kept between runs, outside every checkout."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gputopo"


def version() -> str:
    """Return the version that is built, without its v."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(_SOURCE)} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise MissingError(f"{MODULE / 'go.mod'} requires no {_SOURCE}")
    return found[1]


def binary_folder() -> Path:
    """Return where the components of this version are, or will be."""
    return cache_folder() / "kubernetes" / f"v{version()}"


def missing() -> tuple[str, ...]:
    """Return the components that are still to be built."""
    return tuple(name for name in NAMES if not (binary_folder() / name).is_file())


def build(console: Console) -> Path:
    """Build what is missing, saying how far it is; return the folder of the binaries.

    Raises MissingError when there is no Go, or when Go cannot build them.
    """
    wanted = missing()
    if not wanted:
        return binary_folder()
    go = find_go()
    folder = binary_folder()
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"Kubernetes {version()} is built once, then kept in {folder}")
    for number, name in enumerate(wanted, 1):
        with progress(console, f"building {name}, {number} of {len(wanted)}"):
            _build_one(go, name, folder)
    return folder


def find_go() -> str:
    """Return Go's path, or raise MissingError."""
    go = shutil.which("go")
    if go is None:
        raise MissingError("go is not on the PATH: the Kubernetes components are built with it")
    return go


def _build_one(go: str, name: str, folder: Path) -> None:
    # A build that was interrupted must not look like a finished one.
    unfinished = folder / f".{name}"
    stamp = f"-X k8s.io/component-base/version.gitVersion=v{version()}"
    run_go(
        [
            *(go, "build", "-trimpath", "-ldflags", f"-s -w {stamp}"),
            *("-o", str(unfinished), f"{_SOURCE}/cmd/{name}"),
        ]
    )
    unfinished.rename(folder / name)


def run_go(command: Sequence[str], folder: Path = MODULE) -> str:
    """Run Go in a module and return what it printed. Raises MissingError with its complaint."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def progress(console: Console, what: str) -> Iterator[None]:
    """Show a moving line on a terminal, and in any case one line at the end."""
    begun = time.monotonic()
    with console.status(what) if console.is_terminal else contextlib.nullcontext():
        yield
    console.print(f"  {what}: {time.monotonic() - begun:.0f} s")


def change_version(wanted: str) -> None:
    """Write go.mod anew for another version, and let Go fill in go.sum.

    Go ignores the replaces of a dependency, and those of Kubernetes point into its own tree: each
    staging module has to be replaced by its released version, which is v0 with the same numbers.
    """
    go = find_go()
    got: dict[str, Any] = json.loads(
        run_go([go, "mod", "download", "-json", f"{_SOURCE}@v{wanted}"], Path("/"))
    )
    theirs = json.loads(run_go([go, "mod", "edit", "-json", str(got["GoMod"])], Path("/")))
    staging = [
        str(one["Old"]["Path"])
        for one in theirs["Replace"]
        if str(one["New"]["Path"]).startswith("./staging/")
    ]
    minor = wanted.split(".", 1)[1]
    lines = [
        "module gputopo.dev/e2e/components",
        f"go {theirs['Go']}",
        f"require {_SOURCE} v{wanted}",
        *(f"tool {_SOURCE}/cmd/{name}" for name in NAMES),
        *(f"replace {path} => {path} v0.{minor}" for path in staging),
    ]
    (MODULE / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run_go([go, "mod", "tidy"])


def main() -> int:
    """Build, or change the version; 2 and one line when that cannot be."""
    parser = argparse.ArgumentParser(description="build the real Kubernetes components")
    parser.add_argument("--version", help="change to this version, such as 1.36.5, before")
    wanted = parser.parse_args().version
    try:
        if wanted:
            change_version(wanted)
        print(build(Console(stderr=True)))  # noqa: T201 -- a command prints
    except MissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
