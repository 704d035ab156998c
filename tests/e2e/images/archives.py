"""The images that the cases with real containers need, as archives under the manifests' names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from daemonset.images import gputopo
from daemonset.images.oci import Config, Store
from tests.e2e.components import binary_folder, find_go, version
from tests.e2e.errors import MissingError

PAUSE: Final = "gputopo.dev/e2e/pause:1"
"""What a pod's sandbox runs; containerd is told its name."""

ENVIRONMENT: Final = "gputopo.dev/e2e/environment:1"
"""Prints its environment, then a line that says it is all, and rests."""

LAST_LINE: Final = "-- all --"

_TINY: Final = Path(__file__).with_name("tiny") / "main.go"


def kube_scheduler_name() -> str:
    """Return the name under which the manifests know kube-scheduler."""
    return f"registry.k8s.io/kube-scheduler:v{version()}"


def build_all(workload_names: tuple[str, ...] = ()) -> list[Path]:
    """Return the archives of every image, building what changed.

    `workload_names` are further names for the image that prints its environment: those that
    examples use. Raises MissingError without Go, ImageError when an image cannot be built.
    """
    store = Store(gputopo.cache_folder())
    store.prune(time.time())
    return [
        gputopo.build(store),
        _kube_scheduler(store),
        _tiny(store, PAUSE, "pause"),
        *(_tiny(store, name, "environment") for name in (ENVIRONMENT, *workload_names)),
    ]


def _kube_scheduler(store: Store) -> Path:
    """Return kube-scheduler as it was built for the control plane, alone in its image."""

    def fill(root: Path) -> None:
        target = root / "usr" / "local" / "bin" / "kube-scheduler"
        target.parent.mkdir(parents=True)
        shutil.copy2(binary_folder() / target.name, target)

    binary = binary_folder() / "kube-scheduler"
    stamp = binary.stat()
    layer = store.layer(f"kube-scheduler-{version()}-{stamp.st_size}-{stamp.st_mtime_ns}", fill)
    config = Config(("/usr/local/bin/kube-scheduler",), {"PATH": "/usr/local/bin"}, "65532:65532")
    return store.archive(kube_scheduler_name(), [layer], config)


def _tiny(store: Store, name: str, program: str) -> Path:
    """Return one of the two images of the little program."""

    def fill(root: Path) -> None:
        done = subprocess.run(
            [find_go(), "build", "-trimpath", "-ldflags=-s -w", "-o", program, str(_TINY)],
            cwd=root,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GO111MODULE": "auto"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MissingError(f"go cannot build {_TINY.name}: {done.stderr[-1000:]}")

    source = hashlib.sha256(_TINY.read_bytes()).hexdigest()[:16]
    layer = store.layer(f"tiny-{program}-{source}", fill)
    return store.archive(name, [layer], Config((f"/{program}",), {"PATH": "/"}, "65532:65532"))
