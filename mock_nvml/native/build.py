"""Compiling the shared library with the machine's C compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pynvml

from mock_nvml.errors import BuildError
from mock_nvml.native.signatures import (
    SIGNATURES,
    Answer,
    Argument,
    Array,
    Buffer,
    Struct,
    Text,
    Value,
    Versioned,
)

LIBRARY: Final = "libnvidia-ml.so.1"
SOCKET: Final = "nvml.sock"
"""The name is in shim.c too."""

_OWN_WORDS: Final = frozenset(("nvmlEventSetWait_v2",))
"""Written by hand in shim.c."""


def find_compiler() -> str | None:
    """Return the C compiler: $CC, else cc, gcc or clang; None if there is none."""
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    return None


def build(folder: Path) -> Path:
    """Compile the library into a folder and return its path; takes about a second.

    Raises BuildError without a compiler, with its output if it fails, and for a folder whose path
    is too long for a Unix socket.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C compiler: neither $CC nor cc, gcc or clang is found")
    if len(os.fsencode((folder / SOCKET).resolve())) >= 108:
        raise BuildError(f"{folder}: the path is too long for a Unix socket")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = Path(scratch) / "shim.c"
        shutil.copy(Path(__file__).with_name("shim.c"), source)
        source.with_name("stubs.h").write_text(write_stubs(), encoding="ascii")
        made = source.with_name(LIBRARY)
        # The linker's soname makes a library that was loaded by path stand for the bare name too.
        command = [
            *(compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"),
            *("-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}", "-o", str(made), str(source)),
            "-ldl",
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if run.returncode:
            raise BuildError(f"{compiler} failed: {run.stderr.strip()}")
        made.replace(library)
    return library


def write_stubs() -> str:
    """Return the C code of all functions but those that shim.c has."""
    stubs = (
        "".join(_stub(name, arguments))
        for name, arguments in SIGNATURES.items()
        if name not in _OWN_WORDS
    )
    return "".join((*stubs, *_error_string()))


def _stub(name: str, arguments: tuple[Argument, ...]) -> Iterator[str]:
    parameters = ", ".join(f"{_declare(one)}a{at}" for at, one in enumerate(arguments)) or "void"
    yield f"EXPORT unsigned int {name}({parameters}) {{\n"
    if arguments:
        cells = ", ".join(_pack(one, at) for at, one in enumerate(arguments))
        yield f"    struct argument arguments[] = {{{cells}}};\n"
    given = "arguments" if arguments else "NULL"
    yield f'    return call("{name}", {given}, {len(arguments)});\n}}\n'


def _declare(argument: Argument) -> str:
    if isinstance(argument, Value):
        space = "" if argument.declaration.endswith("*") else " "
        return argument.declaration + space
    return "const char *" if isinstance(argument, Text) else "void *"


def _pack(argument: Argument, at: int) -> str:
    match argument:
        case Value(declaration):
            cast = "(uint64_t)(uintptr_t)" if declaration.endswith("*") else ""
            return f"by_value({cast}a{at})"
        case Text():
            return f"by_text(a{at})"
        case Buffer():
            return f"by_pointer(a{at}, a{at + 1})"
        case Struct(kind):
            return f"by_pointer(a{at}, {ctypes.sizeof(kind)})"
        case Versioned():
            return f"by_version(a{at})"
        case Array(kind, count, pointed):
            many = f"pointed(a{count})" if pointed else f"(size_t)a{count}"
            return f"by_pointer(a{at}, {many} * {ctypes.sizeof(kind)})"
        case Answer():
            return f"by_room(a{at})"


def _error_string() -> Iterator[str]:
    """Yield nvmlErrorString: it answers with a text that is never freed, and needs no mock."""
    yield "EXPORT const char *nvmlErrorString(unsigned int code) {\n    switch (code) {\n"
    yield '    case 0: return "Success";\n'
    seen = {0}
    for name in dir(pynvml):
        code = getattr(pynvml, name)
        if name.startswith("NVML_ERROR_") and isinstance(code, int) and code not in seen:
            seen.add(code)
            words = name.removeprefix("NVML_ERROR_").replace("_", " ").capitalize()
            yield f'    case {code}: return "{words}";\n'
    yield '    default: return "Unknown Error";\n    }\n}\n'
