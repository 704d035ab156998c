"""NVIDIA's device plugin itself, built from its own module, on a folder of sockets of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.e2e.components import cache_folder
from tests.e2e.errors import MissingError
from tests.e2e.process import Process
from tests.e2e.sandbox import check

MODULE: Final = Path(__file__).with_name("reference_device_plugin")
_COMMAND: Final = "github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin"
# Its folder of sockets is compiled in: it gets a mount namespace in which that is ours.
_START: Final = (
    "mount -t tmpfs tmpfs /var/lib && mkdir -p /var/lib/kubelet/device-plugins && "
    'mount --bind "$1" /var/lib/kubelet/device-plugins && exec "$2"'
)


def version() -> str:
    """Return the version that is built, with its v."""
    words = (MODULE / "go.mod").read_text(encoding="utf-8").split()
    return words[words.index("github.com/NVIDIA/k8s-device-plugin") + 1]


def build() -> Path:
    """Build the program once; return its path. Raises MissingError if it cannot be built or run."""
    check()
    program = cache_folder() / "bench" / f"nvidia-device-plugin-{version()}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise MissingError("go is not on the PATH: the reference plugin is built with it")
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".new")
    done = subprocess.run(
        [go, "build", "-o", str(unfinished), _COMMAND],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"the reference plugin does not build: {done.stderr[-500:]}")
    unfinished.rename(program)
    return program


class ReferencePlugin(Process):
    """The plugin with its defaults, on kubelet's folder `sockets`; not started yet."""

    def __init__(self, sockets: Path, environment: Mapping[str, str], log: Path) -> None:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh"]
        super().__init__(
            "nvidia-device-plugin",
            [*command, str(sockets), str(build())],
            log,
            environment=environment,
        )
        self.socket = f"unix:{sockets / 'nvidia-gpu.sock'}"
