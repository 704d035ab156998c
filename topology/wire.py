"""The annotations: versioned JSON to and from the model.

Unknown fields are ignored, so that newer writers do not break older readers; an unknown version
or a broken value raises WireError with the place, and the caller treats it as absent.

The structs in this file that start with an underscore are the shapes on the wire; they never
leave it. Matrices are written once above the diagonal: NVLinks as numbers, levels as one letter.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from topology.errors import ModelError, WireError
from topology.links import Level
from topology.model import Clique, Gpu, LevelMatrix, Nic, NodeTopology

TOPOLOGY_KEY: Final = "gputopo.dev/topology"
STATE_KEY: Final = "gputopo.dev/state"
CORDON_KEY: Final = "gputopo.dev/cordon"
ASSIGNMENT_KEY: Final = "gputopo.dev/gpus"
PROFILE_KEY: Final = "gputopo.dev/profile"
MIN_LINK_KEY: Final = "gputopo.dev/min-link"
GPU_MODEL_KEY: Final = "gputopo.dev/gpu-model"
GPU_MEMORY_KEY: Final = "gputopo.dev/gpu-memory"
STRICT_KEY: Final = "gputopo.dev/strict"

VERSION: Final = 1
MAX_TOPOLOGY_BYTES: Final = 16 * 1024
"""The promise for nodes of up to 16 GPUs and 16 NICs."""
MAX_LARGE_TOPOLOGY_BYTES: Final = 64 * 1024
"""The same for nodes with more: an object's annotations together may have 256 KiB."""
_SMALL: Final = 16

# One letter a level keeps 16 GPUs and 16 NICs far below 16 KiB.
_LETTER: Final = {
    Level.SELF: ".",
    Level.PIX: "i",
    Level.PXB: "x",
    Level.PHB: "h",
    Level.NODE: "n",
    Level.SYS: "s",
}
_LEVEL: Final = {letter: level for level, letter in _LETTER.items()}


class DeviceStatus(StrEnum):
    """What a device is that is not simply well."""

    UNHEALTHY = "unhealthy"
    CORDONED = "cordoned"
    DEGRADED = "degraded"


class DeviceCondition(msgspec.Struct, frozen=True):
    """How a device is, why, and since when (RFC 3339).

    `status` is a DeviceStatus, or a word that only a newer writer knows.
    """

    status: str
    why: str = ""
    since: str = ""


class NodeState(msgspec.Struct, frozen=True):
    """What the node's plugin knows to be true now.

    `unhealthy` maps the uuid of each GPU that must not be given out to the reason. `allocations`
    maps a pod (its UID, or ``namespace/name`` where the UID is unknown) to the uuids that kubelet
    really gave it. `resources` names what the plugin advertises. `withheld` maps the uuid of each
    GPU that is well and is not offered as a whole (it is shared, cut into MIG instances, or
    excluded) to the reason. `conditions` tells people of each GPU and MIG device that is not
    simply well; the scheduler goes by the other fields. `generation` grows with each change.
    """

    generation: int
    resources: tuple[str, ...] = ()
    unhealthy: dict[str, str] = {}
    allocations: dict[str, tuple[str, ...]] = {}
    withheld: dict[str, str] = {}
    conditions: dict[str, DeviceCondition] = {}


class Assignment(msgspec.Struct, frozen=True):
    """The set chosen for a pod: container name to GPU uuids, and why in a few numbers.

    `scores` is a summary for people (bus bandwidth in GB/s, node score). `trace` is a W3C
    traceparent, "" if there is none.
    """

    containers: dict[str, tuple[str, ...]]
    scores: dict[str, float] = {}
    trace: str = ""

    def uuids(self) -> frozenset[str]:
        """Return all GPUs of the pod."""
        return frozenset(uuid for uuids in self.containers.values() for uuid in uuids)


_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Name = Annotated[str, Meta(min_length=1)]


class _Header(msgspec.Struct):
    v: int


class _Gpu(msgspec.Struct, omit_defaults=True):
    uuid: _Name
    index: _Number
    minor: _Number
    pci: str
    model: str
    compute: str = ""
    mib: _Number = 0
    gen: _Number = 0
    numa: str | None = None
    cpus: str | None = None
    node: _Number | None = None


class _Nic(msgspec.Struct):
    name: str
    pci: str
    gpus: str
    nics: str


class _Clique(msgspec.Struct):
    cluster: str
    id: int


class _Topology(msgspec.Struct, omit_defaults=True):
    v: int
    gpus: list[_Gpu]
    nvlinks: list[list[_Number]]
    switch: list[Annotated[int, Meta(ge=-1)]]
    pcie: list[str]
    nics: list[_Nic] = []
    clique: _Clique | None = None


class _State(msgspec.Struct, omit_defaults=True):
    v: int
    generation: _Number
    resources: tuple[str, ...] = ()
    unhealthy: dict[_Name, str] = {}
    allocations: dict[_Name, tuple[_Name, ...]] = {}
    withheld: dict[_Name, str] = {}
    conditions: dict[_Name, DeviceCondition] = {}


class _Assignment(msgspec.Struct, omit_defaults=True):
    v: int
    containers: dict[_Name, tuple[_Name, ...]]
    scores: dict[str, float] = {}
    trace: str = ""


_Wire = TypeVar("_Wire", _Topology, _State, _Assignment)


def encode_topology(topology: NodeTopology) -> str:
    """Return the value of `TOPOLOGY_KEY`.

    Raises WireError if it is larger than 16 KiB (64 KiB above 16 GPUs or NICs).
    """
    text = _encode(
        TOPOLOGY_KEY,
        _Topology(
            v=VERSION,
            gpus=[
                _Gpu(
                    uuid=gpu.uuid,
                    index=gpu.index,
                    minor=gpu.minor,
                    pci=gpu.pci,
                    model=gpu.model,
                    compute=gpu.compute,
                    mib=gpu.memory_mib,
                    gen=gpu.pcie_gen,
                    numa=gpu.numa,
                    cpus=gpu.cpus,
                    node=gpu.numa_node,
                )
                for gpu in topology.gpus
            ],
            nvlinks=[list(row[i + 1 :]) for i, row in enumerate(topology.nvlinks[:-1])],
            switch=list(topology.switch),
            pcie=[_letters(row[i + 1 :]) for i, row in enumerate(topology.pcie[:-1])],
            nics=[
                _Nic(name=nic.name, pci=nic.pci, gpus=_letters(nic.gpus), nics=_letters(nic.nics))
                for nic in topology.nics
            ],
            clique=_Clique(cluster=topology.clique.cluster_uuid, id=topology.clique.clique_id)
            if topology.clique
            else None,
        ),
    )
    _check_size(text, len(topology.gpus), len(topology.nics))
    return text


def decode_topology(text: str | bytes) -> NodeTopology:
    """Read a value of `TOPOLOGY_KEY`. Raises WireError naming the place of what is wrong."""
    wire = _decode(TOPOLOGY_KEY, text, _Topology)
    count = len(wire.gpus)
    counts = _mirror("nvlinks", wire.nvlinks, count, 0)
    letters = _mirror("pcie", [list(row) for row in wire.pcie], count, _LETTER[Level.SELF])
    try:
        return NodeTopology(
            gpus=tuple(
                Gpu(
                    uuid=gpu.uuid,
                    index=gpu.index,
                    minor=gpu.minor,
                    pci=gpu.pci,
                    model=gpu.model,
                    compute=gpu.compute,
                    memory_mib=gpu.mib,
                    pcie_gen=gpu.gen,
                    numa=gpu.numa,
                    cpus=gpu.cpus,
                    numa_node=gpu.node,
                )
                for gpu in wire.gpus
            ),
            nvlinks=counts,
            switch=tuple(wire.switch),
            pcie=_levels_matrix(letters),
            nics=tuple(
                Nic(
                    name=nic.name,
                    pci=nic.pci,
                    gpus=_levels(f"nics[{i}].gpus", nic.gpus),
                    nics=_levels(f"nics[{i}].nics", nic.nics),
                )
                for i, nic in enumerate(wire.nics)
            ),
            clique=Clique(cluster_uuid=wire.clique.cluster, clique_id=wire.clique.id)
            if wire.clique
            else None,
        )
    except ModelError as error:
        raise WireError(TOPOLOGY_KEY, str(error)) from None


def encode_state(state: NodeState) -> str:
    """Return the value of `STATE_KEY`."""
    return _encode(
        STATE_KEY,
        _State(
            v=VERSION,
            generation=state.generation,
            resources=state.resources,
            unhealthy=state.unhealthy,
            allocations=state.allocations,
            withheld=state.withheld,
            conditions=state.conditions,
        ),
    )


def decode_state(text: str | bytes) -> NodeState:
    """Read a value of `STATE_KEY`. Raises WireError naming the place of what is wrong."""
    wire = _decode(STATE_KEY, text, _State)
    _check_unlike(STATE_KEY, "allocations", wire.allocations)
    return NodeState(
        generation=wire.generation,
        resources=wire.resources,
        unhealthy=dict(wire.unhealthy),
        allocations=dict(wire.allocations),
        withheld=dict(wire.withheld),
        conditions=dict(wire.conditions),
    )


def encode_assignment(assignment: Assignment) -> str:
    """Return the value of `ASSIGNMENT_KEY`. Raises WireError if a score is not finite."""
    for name, score in assignment.scores.items():
        if not math.isfinite(score):
            raise WireError(ASSIGNMENT_KEY, f"$.scores[{name!r}]: {score} is no number for JSON")
    return _encode(
        ASSIGNMENT_KEY,
        _Assignment(
            v=VERSION,
            containers=assignment.containers,
            scores=assignment.scores,
            trace=assignment.trace,
        ),
    )


def decode_assignment(text: str | bytes) -> Assignment:
    """Read a value of `ASSIGNMENT_KEY`. Raises WireError naming the place of what is wrong."""
    wire = _decode(ASSIGNMENT_KEY, text, _Assignment)
    _check_unlike(ASSIGNMENT_KEY, "containers", wire.containers)
    return Assignment(containers=dict(wire.containers), scores=dict(wire.scores), trace=wire.trace)


def _encode(key: str, wire: _Topology | _State | _Assignment) -> str:
    try:
        return msgspec.json.encode(wire).decode()
    except UnicodeEncodeError as error:
        raise WireError(key, f"text that is not Unicode: {error.reason}") from None


def _decode(key: str, text: str | bytes, shape: type[_Wire]) -> _Wire:
    try:
        raw = text.encode() if isinstance(text, str) else text
        wire = msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        # A newer version may have any shape: then the version is what is wrong, not the shape.
        _check_version(key, _version_of(raw))
        raise WireError(key, str(error)) from None
    except msgspec.DecodeError as error:
        raise WireError(key, str(error)) from None
    except UnicodeError as error:
        raise WireError(key, f"text that is not Unicode: {error}") from None
    except RecursionError:
        raise WireError(key, "nested too deeply") from None
    _check_version(key, wire.v)
    return wire


def _version_of(raw: bytes) -> int:
    try:
        return msgspec.json.decode(raw, type=_Header).v
    except (msgspec.DecodeError, RecursionError):
        return VERSION


def _check_version(key: str, version: int) -> None:
    if version != VERSION:
        raise WireError(key, f"$.v: version {version} is not {VERSION}")


def _check_size(text: str, gpus: int, nics: int) -> None:
    limit = MAX_TOPOLOGY_BYTES if max(gpus, nics) <= _SMALL else MAX_LARGE_TOPOLOGY_BYTES
    length = len(text.encode())
    if length > limit:
        raise WireError(TOPOLOGY_KEY, f"{length} bytes, at most {limit} are allowed")


def _check_unlike(key: str, field: str, sets: dict[str, tuple[str, ...]]) -> None:
    for name, uuids in sets.items():
        if len(set(uuids)) != len(uuids):
            raise WireError(key, f"$.{field}[{name!r}]: one GPU is named twice")


def _letters(levels: tuple[Level, ...]) -> str:
    return "".join(map(_LETTER.__getitem__, levels))


def _levels(place: str, letters: str) -> tuple[Level, ...]:
    try:
        return tuple(map(_LEVEL.__getitem__, letters))
    except KeyError as error:
        raise WireError(TOPOLOGY_KEY, f"$.{place}: no level is called {error.args[0]!r}") from None


def _levels_matrix(rows: tuple[tuple[str, ...], ...]) -> LevelMatrix:
    return tuple(_levels(f"pcie[{i}]", "".join(row)) for i, row in enumerate(rows))


_Cell = TypeVar("_Cell", int, str)


def _mirror(
    field: str, upper: list[list[_Cell]], count: int, diagonal: _Cell
) -> tuple[tuple[_Cell, ...], ...]:
    """Make the square matrix whose part above the diagonal is `upper`."""
    expected = max(count - 1, 0)
    if len(upper) != expected:
        raise WireError(
            TOPOLOGY_KEY, f"$.{field}: {len(upper)} rows for {count} GPUs, not {expected}"
        )
    matrix = [[diagonal] * count for _ in range(count)]
    for i, row in enumerate(upper):
        if len(row) != count - 1 - i:
            raise WireError(TOPOLOGY_KEY, f"$.{field}[{i}]: {len(row)} cells, not {count - 1 - i}")
        for offset, cell in enumerate(row):
            j = i + 1 + offset
            matrix[i][j] = matrix[j][i] = cell
    return tuple(map(tuple, matrix))
