"""The layers above Debian's Python: the locked dependencies, and our wheel.

pip runs on the image's own interpreter, taken from its unpacked file system: so it is that Python
whose version decides which wheels fit, whatever Python this script runs on. Everything is compiled
beforehand, since the daemons run on a read-only file system.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daemonset.images.commands import run
from daemonset.images.errors import ImageError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LOCK: Final = REPOSITORY / "locks" / "runtime.txt"
LOCK_OF_BUILD: Final = REPOSITORY / "locks" / "build.txt"

# Parts of dependencies that neither daemon imports: two thirds of their size.
_UNUSED: Final = (
    *("kubernetes/client/models/[!_]*", "kubernetes/client/api/[!_]*"),
    *("kubernetes/aio/client/models/[!_]*", "kubernetes/aio/client/api/[!_]*"),
    *("**/tests", "**/*.pyi", "**/*.pyx", "**/*.pxd", "numpy/f2py", "numpy/_core/include"),
    "numpy/_core/lib",
)

_SCRIPT: Final = "#!/usr/bin/python3\nimport sys\n\nfrom cli.main import run\n\nsys.exit(run())\n"


def dependencies_key(base: str) -> str:
    """Name what the lock makes on a base file system."""
    return f"dependencies-{_digest(base, LOCK.read_bytes(), Path(__file__).read_bytes())}"


def fill_dependencies(root: Path, base: Path) -> None:
    """Install the locked dependencies for the Python of an unpacked base file system."""
    target = root / _site(base)
    _image_python(
        base,
        *("-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"),
        *("--no-compile", "--only-binary", ":all:", "--require-hashes", "-r", str(LOCK)),
        *("--target", str(target)),
        paths=[_home_of_pip()],
    )
    prune(target)
    _drop_scripts(target)
    # Where Debian's OpenSSL looks for the authorities that it trusts.
    trusted = root / "usr" / "lib" / "ssl" / "cert.pem"
    trusted.parent.mkdir(parents=True)
    trusted.symlink_to(Path("/") / _site(base) / "certifi" / "cacert.pem")
    compile_below(root, base)


def prune(site: Path) -> None:
    """Take out of a folder of installed packages what neither daemon imports."""
    for pattern in _UNUSED:
        for path in list(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def wheel_key(base: str) -> str:
    """Name what our sources make on a base file system."""
    contents = [Path(__file__).read_bytes(), LOCK_OF_BUILD.read_bytes()]
    for path in _sources():
        contents += [str(path.relative_to(REPOSITORY)).encode(), path.read_bytes()]
    return f"gputopo-{_digest(base, *contents)}"


def _sources() -> list[Path]:
    """Return the files that the wheel is made of, as pyproject.toml says."""
    project = REPOSITORY / "pyproject.toml"
    told = tomllib.loads(project.read_text(encoding="utf-8"))
    folders = told["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    described = [project, *(REPOSITORY / name for name in told["project"]["license-files"])]
    described.append(REPOSITORY / told["project"]["readme"])
    return described + sorted(
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def fill_wheel(root: Path, base: Path) -> None:
    """Build our wheel, unpack it and add the command."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(REPOSITORY)),
        )
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / _site(base))
    command = root / "usr" / "local" / "bin" / "gputopo"
    command.parent.mkdir(parents=True)
    command.write_text(_SCRIPT)
    command.chmod(0o755)
    compile_below(root, base)


def _drop_scripts(site: Path) -> None:
    """Take out the dependencies' commands, and what their records say of them.

    They begin with the path of the interpreter, which is gone, and was another each time.
    """
    shutil.rmtree(site / "bin")
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("../")]
        record.write_text("".join(kept), encoding="utf-8")


def compile_below(root: Path, base: Path) -> None:
    """Compile all modules for the image's Python, to be trusted without a look at the sources."""
    _image_python(
        base,
        *("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(root), "-p", "/", str(root)),
    )


def _site(base: Path) -> Path:
    """Return where Debian's Python looks for what did not come from Debian, relative."""
    version = next((base / "usr" / "lib").glob("python3.*")).name
    return Path("usr") / "local" / "lib" / version / "dist-packages"


def _image_python(base: Path, *arguments: str, paths: Sequence[Path] = ()) -> None:
    """Run the interpreter of an unpacked file system, by its own loader and libraries."""
    places = [*base.glob("lib/*-linux-gnu"), *base.glob("usr/lib/*-linux-gnu")]
    loader = next((found for place in places for found in place.glob("ld-linux-*.so.*")), None)
    if loader is None:
        raise ImageError(f"{base} has no dynamic loader")
    run(
        *(str(loader), "--library-path", ":".join(map(str, places))),
        *(str(base / "usr" / "bin" / "python3"), "-s", *arguments),
        env={
            **os.environ,
            "PYTHONHOME": str(base / "usr"),
            "PYTHONPATH": ":".join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def _home_of_pip() -> Path:
    import pip  # noqa: PLC0415 -- only a build needs it

    return Path(pip.__path__[0]).parent


def _digest(base: str, *contents: bytes) -> str:
    told = hashlib.sha256(base.encode())
    for content in contents:
        told.update(hashlib.sha256(content).digest())
    return told.hexdigest()[:32]
