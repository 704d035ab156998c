"""A part of this machine for the clusters alone, which goes away with its first process.

``python -m tests.e2e.sandbox COMMAND...`` runs a command, as root, in namespaces of its own:

| namespace | why |
|---|---|
| network | every port is free, 10.96.0.1 may be the API server's address; nothing reaches outside |
| mount | kubelet's device-plugins path is compiled in; what is mounted here is seen here only |
| pid | when the command ends, so does everything that it started |
| cgroup | containers' cgroups lie below one that is removed afterwards |
| uts, ipc | containers on the host's network share these |

kubelet sets three kernel settings that are everybody's; files with the values that it wants lie
over them here, so it finds them right and writes to the files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.e2e.errors import MissingError

KUBELET: Final = Path("/var/lib/kubelet")
"""kubelet's folder: private folders are bound over it, one for each kubelet."""

NETWORKS: Final = Path("/var/lib/cni")
"""Where containerd notes the pods' networks; the same holds for it."""

SERVICE_ADDRESS: Final = "10.96.0.1"
"""Where pods find the API server: on the loopback interface, so that no proxy is needed."""

_INSIDE: Final = "--inside"
_UNSHARE: Final = (
    *("unshare", "--net", "--mount", "--pid", "--cgroup", "--uts", "--ipc"),
    *("--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"),
)
_CGROUPS: Final = Path("/sys/fs/cgroup")
_MOUNT_FLAGS: Final = {"rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec"}
# kubelet's own values, from its container manager (setupKernelTunables).
_SYSCTLS: Final = {"vm/overcommit_memory": 1, "kernel/panic": 10, "kernel/panic_on_oops": 1}


def run(command: Sequence[str]) -> int:
    """Run a command inside; return its exit code. Raises MissingError unless root on Linux."""
    check()
    inside = (sys.executable, "-m", "tests.e2e.sandbox", _INSIDE, *command)
    with _cgroups():
        return subprocess.run([*_UNSHARE, *inside], check=False).returncode


def check() -> None:
    """Raise MissingError, saying why, if no sandbox can be made here."""
    if sys.platform != "linux":
        raise MissingError("Linux is needed: kubelets run in namespaces of their own")
    if os.geteuid() != 0:
        raise MissingError("root is needed: kubelets run in namespaces of their own")
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not on the PATH (Debian: util-linux, iproute2, mount)")
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        # Root within a container is often not allowed to.
        raise MissingError(f"namespaces cannot be made here: {tried.stderr.strip()}")


def _live_inside(command: Sequence[str]) -> int:
    """Prepare the namespaces from within, as their first process, and run the command."""
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "address", "add", f"{SERVICE_ADDRESS}/32", "dev", "lo")
    _mount_cgroups()
    # kubelet links its containers' logs here, wherever the logs themselves are told to lie.
    _do("mount", "-t", "tmpfs", "tmpfs", "/var/log")
    # Folders that the host may lack. Made there, they would have to be deleted there, and that
    # takes away what is mounted on them in every other sandbox.
    upper, work = (Path(tempfile.mkdtemp(dir="/var/log")) for _ in range(2))
    layers = f"lowerdir=/var/lib,upperdir={upper},workdir={work}"
    _do("mount", "-t", "overlay", "-o", layers, "overlay", "/var/lib")
    for folder in (KUBELET, NETWORKS):
        folder.mkdir(exist_ok=True)
    guards = Path(tempfile.mkdtemp(dir="/var/log"))
    for name, value in _SYSCTLS.items():
        guard = guards / name.replace("/", ".")
        guard.write_text(f"{value}\n")
        _do("mount", "--bind", str(guard), f"/proc/sys/{name}")
    child = subprocess.Popen(command)
    # The first process of a pid namespace inherits everybody's orphans.
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def _cgroups() -> Iterator[None]:
    """Move this process into cgroups of its own, so that the cgroup namespace begins there."""
    here = _own_cgroups()
    made: list[tuple[Path, Path]] = []
    try:
        for root, path in here.items():
            before = root / path
            own = before / f"gputopo-e2e-{os.getpid()}"
            own.mkdir()
            made.append((own, before))
            if root.name == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (own / name).write_text((before / name).read_text())
            (own / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        for own, before in made:
            (before / "cgroup.procs").write_text(str(os.getpid()))
            # Deepest first; the namespace's processes are gone by now.
            for folder, _, _ in os.walk(own, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def _own_cgroups() -> dict[Path, str]:
    """Map each mounted hierarchy to this process's place in it."""
    found: dict[Path, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        roots = [_CGROUPS / name] if name else [_CGROUPS / "unified", _CGROUPS]
        root = next((root for root in roots if (root / "cgroup.procs").exists()), None)
        if root is not None:
            found[root] = path.lstrip("/")
    return found


def _mount_cgroups() -> None:
    """Show this namespace's part of each hierarchy where tools look for the whole."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind not in {"cgroup", "cgroup2"}:
            continue
        which = ",".join(o for o in options.split(",") if o not in _MOUNT_FLAGS)
        _do("umount", place)
        _do("mount", "-t", kind, *(("-o", which) if which else ()), kind, place)


def _do(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> int:
    """Enter the sandbox, or go on inside it."""
    arguments = sys.argv[1:]
    if not arguments:
        sys.stderr.write("usage: python -m tests.e2e.sandbox COMMAND...\n")
        return 2
    if arguments[0] == _INSIDE:
        return _live_inside(arguments[1:])
    try:
        return run(arguments)
    except MissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
