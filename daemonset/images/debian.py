"""A root file system with Debian's Python and nothing that Python does not need.

apt-get resolves and fetches the packages as if nothing were installed; dpkg-deb unpacks them.
Their scripts do not run, so no root is needed, and neither a shell nor a package manager is in it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daemonset.images.commands import run

PACKAGES: Final = ("base-files", "libc6", "libstdc++6", "python3")
"""What is asked for; libstdc++ is for grpcio and numpy."""

# Packages that others name for their maintainer scripts, with the libraries that only those use.
_SCRIPTING: Final = frozenset(
    {"dpkg", "mawk", "tar", "libacl1", "libmd0", "libpcre2-8-0", "libselinux1", "libzstd1"}
)
_UNUSED: Final = (
    *("usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug"),
    *("usr/share/applications", "usr/share/pixmaps", "usr/share/doc-base", "usr/share/gdb"),
    *("usr/lib/python3*/idlelib", "usr/lib/python3*/lib2to3", "usr/lib/python3*/pydoc_data"),
    *("usr/lib/python3*/ensurepip", "usr/lib/python3*/turtle*", "usr/lib/*/gconv"),
    *("usr/bin/py3*", "usr/bin/pydoc*", "usr/bin/pygettext*", "usr/bin/pdb*"),
)
_USERS: Final = "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\ngputopo:x:65532:65532::/:/\n"
_GROUPS: Final = "root:x:0:\nnogroup:x:65534:\ngputopo:x:65532:\n"


def resolve(packages: Sequence[str] = PACKAGES) -> tuple[str, ...]:
    """Return the packages with their versions, `name=version`, sorted.

    Raises ImageError when apt-get is missing or knows no such packages.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lines = _apt(Path(scratch), "--simulate", *packages).splitlines()
    found = [line.split()[1:3] for line in lines if line.startswith("Inst ")]
    named = {name: version.lstrip("(") for name, version in found}
    return tuple(
        f"{name}={version}" for name, version in sorted(named.items()) if name not in _SCRIPTING
    )


def key(packages: Sequence[str]) -> str:
    """Name the file system that these packages and this module make."""
    told = hashlib.sha256(Path(__file__).read_bytes())
    told.update("\n".join(packages).encode())
    return f"debian-{told.hexdigest()[:32]}"


def fill(root: Path, packages: Sequence[str]) -> None:
    """Fetch packages, of which each is `name=version`, and unpack them into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        _apt(Path(scratch), "--download-only", *packages)
        wanted = {package.partition("=")[0] for package in packages}
        for archive in sorted((Path(scratch) / "archives").glob("*.deb")):
            name = archive.name.partition("_")[0]
            if name in wanted:
                run("dpkg-deb", "--extract", str(archive), str(root))
                _note(root, name, archive)
    _thin(root)
    etc = root / "etc"
    (etc / "passwd").write_text(_USERS)
    (etc / "group").write_text(_GROUPS)
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")


def _apt(scratch: Path, mode: str, *packages: str) -> str:
    """Run apt-get install as if on an empty machine, touching nothing but `scratch`."""
    status = scratch / "status"
    status.touch()
    (scratch / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return run(
        *("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", mode),
        *("-o", f"Dir::State::status={status}"),
        *("-o", f"Dir::Cache::archives={scratch / 'archives'}"),
        *("-o", "Debug::NoLocking=true"),
        # Else apt-get gives the folder away to its own user, or warns that it cannot.
        *("-o", "APT::Sandbox::User="),
        *packages,
    )


def _note(root: Path, name: str, archive: Path) -> None:
    """Leave what scanners look for: which package this was, in which version."""
    notes = root / "var" / "lib" / "dpkg" / "status.d"
    notes.mkdir(parents=True, exist_ok=True)
    (notes / name).write_text(run("dpkg-deb", "--field", str(archive)))


def _thin(root: Path) -> None:
    """Take out what no program reads; licences stay."""
    for pattern in _UNUSED:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in sorted((root / "usr" / "share" / "doc").rglob("*"), reverse=True):
        if path.is_symlink() or (path.is_file() and path.name != "copyright"):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
