"""The image of both daemons: Debian's Python, the locked dependencies, our wheel.

``python -m daemonset.images.gputopo`` builds it into the user's cache folder, from which nothing
is rebuilt that did not change, and prints the archive's path.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daemonset.images import debian, python
from daemonset.images.errors import ImageError
from daemonset.images.oci import Config, Store

NAME: Final = "docker.io/library/gputopo:0.1.0"
_CONFIG: Final = Config(
    entrypoint=("/usr/local/bin/gputopo",),
    env={
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # Modules are compiled already; the file system is read-only.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    },
    # The device plugin's pod asks for root, which kubelet's sockets belong to.
    user="65532:65532",
    labels={"org.opencontainers.image.licenses": "Apache-2.0"},
)


def cache_folder() -> Path:
    """Return where images and their layers are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gputopo" / "images"


def build(store: Store, name: str = NAME) -> Path:
    """Return the archive of the image, building the layers that changed.

    Raises ImageError when a tool is missing or fails.
    """
    packages = debian.resolve()
    base_key = debian.key(packages)

    def fill_base(root: Path) -> None:
        debian.fill(root, packages)
        python.compile_below(root, root)

    base = store.layer(base_key, fill_base)

    @contextlib.contextmanager
    def unpacked() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            store.unpack([base], Path(folder))
            yield Path(folder)

    def fill_dependencies(root: Path) -> None:
        with unpacked() as folder:
            python.fill_dependencies(root, folder)

    dependencies = store.layer(python.dependencies_key(base_key), fill_dependencies)

    def fill_wheel(root: Path) -> None:
        with unpacked() as folder:
            python.fill_wheel(root, folder)

    own = store.layer(python.wheel_key(base_key), fill_wheel)
    return store.archive(name, [base, dependencies, own], _CONFIG)


def main() -> int:
    """Build; 2 and one line when that cannot be."""
    parser = argparse.ArgumentParser(description="build gputopo's image as an OCI archive")
    parser.add_argument("--name", default=NAME, help="its full name (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where it is kept")
    arguments = parser.parse_args()
    store = Store(arguments.cache)
    try:
        path = build(store, arguments.name)
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    store.prune(time.time())
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
