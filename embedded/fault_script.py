"""A script of GPU faults for a demo: which mock machine gets what, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from embedded.errors import FaultError
from embedded.faults import LATEST_SECONDS
from mock_nvml.errors import FaultError as MockFaultError
from mock_nvml.faults import parse_fault
from topology.machines import Machine
from topology.yaml_text import YamlError, load_yaml

SHIPPED: Final = Path(__file__).parent / "scripts"

# What leaves a GPU, or all of a node, not to be had for a while. None is every GPU.
_TAKING: Final = frozenset(("xid", "ecc", "lost", "removed", "remap", "call", "slow", "mig"))
_TAKING_ALL: Final = frozenset(("driver",))


class ScriptedFault(msgspec.Struct, frozen=True):
    """An entry: `at` seconds after the first pod, `entry` for the mock NVML of `node`.

    `gpus` are the indexes of those that it may take away.
    """

    at: float
    node: str
    entry: dict[str, Any]
    gpus: tuple[int, ...]

    def __str__(self) -> str:
        words = [f"{key} {_say(value)}" for key, value in self.entry.items() if key != "kind"]
        return f"{self.node}: {self.entry['kind']} {', '.join(words)}".rstrip()


def _say(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value).lower()


def find_script(reference: str) -> Path:
    """Return a file, or the shipped script of that name; raises FaultError if there is neither."""
    path = Path(reference)
    if path.exists():
        return path
    shipped = SHIPPED / f"{reference}.yaml"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.yaml")))
    raise FaultError(f"--fault-script {reference}: neither a file nor one of {names}")


def read_script(path: Path, machines: Mapping[str, Machine]) -> tuple[ScriptedFault, ...]:
    """Read a script for these nodes, in order of time; raises FaultError naming the entry."""
    try:
        entries = load_yaml(path.read_bytes())
    except (OSError, YamlError) as error:
        raise FaultError(f"{path}: {error}") from None
    if not isinstance(entries, list):
        raise FaultError(f"{path}: a list of faults is wanted")
    faults = [_read(path, at, entry, machines) for at, entry in enumerate(entries)]
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _read(path: Path, number: int, entry: object, machines: Mapping[str, Machine]) -> ScriptedFault:
    place = f"[{number}]"
    if not isinstance(entry, dict):
        raise FaultError(f"{path}: {place}: a mapping is wanted")
    rest = dict(entry)
    node = str(rest.pop("node", next(iter(machines))))
    if node not in machines:
        raise FaultError(f"{path}: {place}.node: no node {node!r}; there are {', '.join(machines)}")
    try:
        fault = parse_fault(rest, str(path), place, machines[node])
    except MockFaultError as error:
        raise FaultError(str(error)) from None
    at = float(rest.pop("at", 0.0))
    if at > LATEST_SECONDS:
        raise FaultError(f"{path}: {place}.at: {at:g} is more than {LATEST_SECONDS:g} seconds")
    kind = str(rest["kind"])
    every = tuple(range(len(machines[node].gpus)))
    gpu: int | None = getattr(fault, "gpu", None)
    taken: Sequence[int] = ()
    if kind in _TAKING_ALL or (kind in _TAKING and gpu is None):
        taken = every
    elif kind in _TAKING and gpu is not None:
        taken = (gpu,)
    return ScriptedFault(at=at, node=node, entry=rest, gpus=tuple(taken))
