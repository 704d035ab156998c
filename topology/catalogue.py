"""The machine descriptions that ship with the package, and reading one by path or name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from topology.errors import MachineFileError
from topology.machine_yaml import parse_machine
from topology.machines import Machine

_SUFFIX = ".yaml"


def shipped_names() -> tuple[str, ...]:
    """Return the names of the shipped machines in alphabetical order."""
    folder = files("topology") / "machine_files"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def load_machine(ref: str) -> Machine:
    """Read the machine file at a path, or the shipped machine of that name.

    Raises MachineFileError if there is neither (naming the shipped names that come close), if the
    file cannot be read, or if it breaks the format.
    """
    path = Path(ref)
    try:
        if path.exists():
            return parse_machine(path.read_bytes(), ref)
    except (OSError, ValueError) as error:
        if isinstance(error, MachineFileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        raise MachineFileError(ref, "", f"cannot be read: {reason or error}") from None
    names = shipped_names()
    if ref in names:
        text = (files("topology") / "machine_files" / f"{ref}{_SUFFIX}").read_bytes()
        return parse_machine(text, ref)
    close = get_close_matches(ref.removesuffix(_SUFFIX), names, n=3, cutoff=0.5)
    hint = f"; close ones: {', '.join(close)}" if close else ""
    raise MachineFileError(ref, "", f"neither a file nor a shipped machine{hint}")
