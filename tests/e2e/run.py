"""`make e2e`: everything on real components, in a sandbox; what is missing is said in one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console

from daemonset.images.errors import ImageError
from tests.e2e import cdi, components, containerd, helm, sandbox
from tests.e2e.errors import MissingError
from tests.e2e.images.archives import build_all

_TOOLS: Final = {
    "etcd": "etcd-server",
    "openssl": "openssl",
    "containerd": "containerd",
    "runc": "runc",
    "prometheus": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
}
"""What has to be on the PATH, and Debian's package that brings it."""

_PYTEST: Final = (
    *(sys.executable, "-m", "pytest", "--real", "-p", "no:cacheprovider"),
    *("-n", "2", "--dist", "loadfile"),
)
_PLACES: Final = ("tests/contract", "tests/e2e")


def check() -> None:
    """Raise MissingError with one line that says all that the machine lacks."""
    sandbox.check()
    packages = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if packages:
        raise MissingError(f"not installed: {' '.join(packages)} (names of Debian's packages)")
    containerd.check()
    if components.missing() or helm.missing() or cdi.missing():
        components.find_go()


def main(arguments: Sequence[str]) -> int:
    """Build what is missing, then run pytest in the sandbox; 2 if the machine will not do."""
    try:
        check()
        console = Console(stderr=True)
        components.build(console)
        helm.build(console)
        cdi.build(console)
        # Here, since nothing can be fetched from inside.
        with components.progress(console, "building images"):
            build_all()
        places = () if any(a.startswith("tests/") for a in arguments) else _PLACES
        return sandbox.run([*_PYTEST, *places, *arguments])
    except (MissingError, ImageError) as error:
        sys.stderr.write(f"make e2e: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
