# noqa: INP001 -- this folder holds the IDL and is never a package
"""Generate the gRPC code of this folder into the repository (or, in a test, into another folder).

Run as a file: ``python proto/generate.py [OUTPUT]``. The import root is proto/, so the
output lands in the package that uses it and its imports need no edit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "proto"
HEADER = "# DO NOT EDIT: generated from proto/{source} by `make proto`.\n"


def idl_files() -> list[str]:
    """Return the IDL files relative to proto/, sorted."""
    return sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))


def generate(output: Path) -> list[Path]:
    """Write messages, stubs and their types below `output`; return the files made, sorted.

    Raises RuntimeError naming the IDL file that the compiler refuses.
    """
    # The type plugins are console scripts beside the interpreter, which need not be on PATH.
    scripts = Path(sys.executable).parent
    made: list[Path] = []
    for name in idl_files():
        arguments = [
            "protoc",
            f"--proto_path={SOURCE}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet:{output}",
            name,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc refuses {name}")
        stem = output / name.removesuffix(".proto")
        for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            path = stem.with_name(stem.name + suffix)
            path.write_text(HEADER.format(source=name) + path.read_text())
            made.append(path)
    return sorted(made)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    for generated in generate(target):
        sys.stdout.write(f"{generated.relative_to(target)}\n")
