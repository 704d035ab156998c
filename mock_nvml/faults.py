"""Faults: what may befall a machine, from Python or from a script.

A script is a YAML list of entries ``{at: seconds, kind: ..., ...}``; `at` counts from the start of
playing. Entries appended to a script that is being played take effect too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

import msgspec
import pynvml

from mock_nvml.errors import FaultError, NvmlStatusError
from mock_nvml.mig import MigState
from mock_nvml.mig_profiles import geometry_of, named_profiles
from mock_nvml.products import find_product
from topology.machines import Machine
from topology.yaml_text import YamlError, load_yaml


class Xid(msgspec.Struct, frozen=True, tag="xid", tag_field="kind", forbid_unknown_fields=True):
    """The driver reports an XID. The instances are a MIG device's; None is the whole GPU."""

    gpu: int
    xid: int
    at: float = 0.0
    gpu_instance: int | None = None
    compute_instance: int | None = None


class Ecc(msgspec.Struct, frozen=True, tag="ecc", tag_field="kind", forbid_unknown_fields=True):
    """Memory errors: counted, and reported as an event; `double` ones cannot be corrected."""

    gpu: int
    at: float = 0.0
    double: bool = True
    count: int = 1


class Lost(msgspec.Struct, frozen=True, tag="lost", tag_field="kind", forbid_unknown_fields=True):
    """The GPU falls off the bus: its calls say GPU_IS_LOST, and so does each wait for events.

    `event` says whether XID 79 is reported first: real losses come both ways. `answers` names the
    functions that still answer; which ones do on hardware is not documented.
    """

    gpu: int
    at: float = 0.0
    event: bool = True
    answers: tuple[str, ...] = ()


class Removed(
    msgspec.Struct, frozen=True, tag="removed", tag_field="kind", forbid_unknown_fields=True
):
    """The GPU is unplugged: lost at once, and no longer numbered after the next initialisation."""

    gpu: int
    at: float = 0.0


class LinkDown(
    msgspec.Struct, frozen=True, tag="link-down", tag_field="kind", forbid_unknown_fields=True
):
    """An NVLink goes down on both ends; all of the GPU's if `link` is None."""

    gpu: int
    at: float = 0.0
    link: int | None = None


class LinkUp(
    msgspec.Struct, frozen=True, tag="link-up", tag_field="kind", forbid_unknown_fields=True
):
    """An NVLink comes up again on both ends; all that the board has if `link` is None."""

    gpu: int
    at: float = 0.0
    link: int | None = None


class Thermal(
    msgspec.Struct, frozen=True, tag="thermal", tag_field="kind", forbid_unknown_fields=True
):
    """The GPU has a temperature; from its slowdown threshold on its clocks are held down."""

    gpu: int
    celsius: int
    at: float = 0.0


class Remap(msgspec.Struct, frozen=True, tag="remap", tag_field="kind", forbid_unknown_fields=True):
    """Rows of memory wait for a reset to be remapped, or there is no spare row left."""

    gpu: int
    at: float = 0.0
    pending: bool = True
    failed: bool = False


class Driver(
    msgspec.Struct, frozen=True, tag="driver", tag_field="kind", forbid_unknown_fields=True
):
    """The driver is unloaded, or loaded anew, perhaps in another version.

    What was initialised before ends. A process that has loaded the library of another version
    cannot initialise any more (LIB_RM_VERSION_MISMATCH); one that starts later can.
    """

    at: float = 0.0
    loaded: bool = True
    version: str | None = None


class Partition(
    msgspec.Struct, frozen=True, tag="mig", tag_field="kind", forbid_unknown_fields=True
):
    """The GPU is cut into MIG devices anew; with `profiles` None MIG goes off, with [] it is empty.

    Devices that were there before end, whoever uses them: a script is no driver that refuses.
    """

    gpu: int
    profiles: tuple[str, ...] | None
    at: float = 0.0


class FailingCall(
    msgspec.Struct, frozen=True, tag="call", tag_field="kind", forbid_unknown_fields=True
):
    """A C function fails with `code` (number, or name as ``UNKNOWN``), `times` times or for good.

    `gpu` limits it to calls about that GPU's handle.
    """

    function: str
    code: int | str
    at: float = 0.0
    gpu: int | None = None
    times: int | None = None


class SlowCall(
    msgspec.Struct, frozen=True, tag="slow", tag_field="kind", forbid_unknown_fields=True
):
    """A C function takes `seconds` longer, until recovery."""

    function: str
    seconds: float
    at: float = 0.0
    gpu: int | None = None


class Recover(
    msgspec.Struct, frozen=True, tag="recover", tag_field="kind", forbid_unknown_fields=True
):
    """Everything is well again: with one GPU, or with the whole machine and its calls."""

    at: float = 0.0
    gpu: int | None = None


Fault = (
    Xid
    | Ecc
    | Lost
    | Removed
    | LinkDown
    | LinkUp
    | Thermal
    | Remap
    | Driver
    | Partition
    | FailingCall
    | SlowCall
    | Recover
)
KINDS: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(Fault))


def parse_fault(entry: object, source: str, place: str, machine: Machine) -> Fault:
    """Check one fault for a machine; raises FaultError naming the place in it."""
    gpus = len(machine.gpus)
    if not isinstance(entry, dict):
        raise FaultError(source, place, "a mapping is wanted")
    if entry.get("kind") not in KINDS:
        kinds = ", ".join(KINDS)
        raise FaultError(source, f"{place}.kind", f"{entry.get('kind')!r} is none of {kinds}")
    try:
        fault: Fault = msgspec.convert(entry, Fault)
    except msgspec.ValidationError as error:
        problem, _, inner = str(error).partition(" - at `$")
        raise FaultError(source, place + inner.rstrip("`"), problem) from None
    if not isinstance(fault, Driver) and fault.gpu is not None and not 0 <= fault.gpu < gpus:
        raise FaultError(
            source, f"{place}.gpu", f"{fault.gpu}: the machine has GPU 0 to {gpus - 1}"
        )
    if fault.at < 0:
        raise FaultError(source, f"{place}.at", f"{fault.at:g} s lies in the past")
    if isinstance(fault, SlowCall) and fault.seconds < 0:
        raise FaultError(source, f"{place}.seconds", f"{fault.seconds:g} s")
    if isinstance(fault, FailingCall) and code_of(fault.code) is None:
        raise FaultError(source, f"{place}.code", f"{fault.code!r} is no code of NVML")
    if isinstance(fault, Partition) and fault.profiles is not None:
        problem = check_partition(machine, fault.profiles)
        if problem:
            raise FaultError(source, f"{place}.profiles", problem)
    return fault


def check_partition(machine: Machine, profiles: Sequence[str]) -> str:
    """Return why a machine's GPU cannot be cut like this, "" if it can."""
    product = find_product(machine.model)
    known = named_profiles(product)
    if not known:
        return f"{product.name} has no MIG"
    for name in profiles:
        if name not in known:
            return f"{name!r} is none of {', '.join(known)}"
    trial = MigState(geometry_of(product), "", itertools.count().__next__)
    try:
        trial.partition([known[name] for name in profiles])
    except NvmlStatusError:
        return f"{', '.join(profiles)} do not fit together on {product.name}"
    return ""


def code_of(code: int | str) -> int | None:
    """Return NVML's number for a name such as ``GPU_IS_LOST``; numbers stay. None if unknown."""
    if isinstance(code, int):
        return code
    number = getattr(pynvml, f"NVML_ERROR_{code.upper()}", None)
    return number if isinstance(number, int) else None


def read_script(path: Path, machine: Machine) -> tuple[Fault, ...]:
    """Read a fault script for a machine; raises FaultError naming the entry."""
    try:
        entries = load_yaml(path.read_bytes())
    except OSError as error:
        raise FaultError(str(path), "", f"cannot be read: {error.strerror}") from None
    except YamlError as error:
        place = f"line {error.line}" if error.line else ""
        raise FaultError(str(path), place, error.problem) from None
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise FaultError(str(path), "", "a list of faults is wanted")
    return tuple(
        parse_fault(entry, str(path), f"[{at}]", machine) for at, entry in enumerate(entries)
    )
