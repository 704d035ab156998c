"""Reading a real pod list (the openb trace's CSV format) as pods for the embedded cluster.

Whole-GPU and CPU-only pods are taken in the order of the file; pods that ask for a share of a GPU
are left out and counted. Columns of the format that a list lacks (the multigpu files have neither
phases nor times) are done without; a missing required column is an error that names it.
"""

from __future__ import annotations

import csv
import io
import math
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from embedded.errors import WorkloadError
from embedded.workload import ContainerPlan, PodPlan
from topology.wire import GPU_MODEL_KEY

REQUIRED_COLUMNS: Final = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
WHOLE_GPU_MILLI: Final = 1000
_MAX_AMOUNT: Final = 10**12
_MAX_GPUS: Final = 1024
_POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

# The trace's model codes, as they can be recognised in an NVML product name. G1 to G3 are
# undisclosed; V100M16 and V100M32 differ in memory only, which the product name tells.
_MODEL_PATTERNS: Final = {
    "P100": r"\bP100\b",
    "T4": r"\bT4\b",
    "A10": r"\bA10\b",
    "V100M16": r"\bV100\b.*\b16GB\b",
    "V100M32": r"\bV100\b.*\b32GB\b",
}
# Real pods live from seconds to months. The logarithm keeps their order, in seconds to watch.
_SHORTEST_LIFE: Final = 5.0
_LONGEST_LIFE: Final = 1.3e7


class Lifetimes(msgspec.Struct, frozen=True):
    """The range of seconds that the trace's lifetimes are compressed to."""

    shortest: float = 1.0
    longest: float = 8.0

    def compress(self, seconds: float) -> float:
        """Map a real life of 5 s to 5 months onto the range, by its logarithm.

        >>> [round(Lifetimes().compress(s), 1) for s in (0, 5, 8000, 1.3e7, 1e9)]
        [1.0, 1.0, 4.5, 8.0, 8.0]
        """
        span = math.log(_LONGEST_LIFE / _SHORTEST_LIFE)
        share = math.log(max(seconds, _SHORTEST_LIFE) / _SHORTEST_LIFE) / span
        return self.shortest + (self.longest - self.shortest) * min(share, 1.0)


class Trace(msgspec.Struct, frozen=True):
    """The pods of a list in its order, and how many rows were left out, by cause."""

    pods: tuple[PodPlan, ...]
    shared: int
    unknown_model: int


class _Row(msgspec.Struct, frozen=True):
    """A row's cells, and where it stands."""

    cells: dict[str, str]
    place: str

    def number(self, column: str, highest: int = _MAX_AMOUNT) -> int:
        text = self.cells[column].strip()
        # The length first: Python refuses to read a number of thousands of digits.
        if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > highest:
            raise WorkloadError(
                f"{self.place}, column {column}: {text!r} is not a whole number of 0 to {highest}"
            )
        return int(text)

    def time(self, column: str) -> float | None:
        text = self.cells.get(column, "").strip()
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < 0:
            raise WorkloadError(f"{self.place}, column {column}: {text!r} is not a time in seconds")
        return seconds


def read_trace(
    path: Path,
    models: Sequence[str],
    *,
    seed: int = 0,
    lifetimes: Lifetimes = Lifetimes(),  # noqa: B008 -- a frozen value
) -> Trace:
    """Read a pod list; raises WorkloadError naming the file, and the line and column at fault.

    `models` are the GPU product names there are: a pod whose ``gpu_spec`` allows only others is
    left out, and one that allows some of them asks for those. Where the list has no times,
    lifetimes are drawn with `seed`.
    """
    dice = random.Random(seed)  # noqa: S311 -- a workload needs repetition, not secrecy
    pods: list[PodPlan] = []
    seen: set[str] = set()
    shared = unknown_model = 0
    for row in _read_rows(path):
        name = row.cells["name"].strip()
        if not _POD_NAME.fullmatch(name):
            raise WorkloadError(f"{row.place}, column name: {name!r} is not a pod name")
        if name in seen:
            raise WorkloadError(f"{row.place}, column name: {name!r} occurs twice")
        seen.add(name)
        gpus = row.number("num_gpu", _MAX_GPUS)
        share = row.number("gpu_milli", WHOLE_GPU_MILLI)
        plan = PodPlan(
            name=name,
            containers=(
                ContainerPlan("main", gpus, row.number("cpu_milli"), row.number("memory_mib")),
            ),
            run_seconds=round(lifetimes.compress(_life(row, dice)), 3),
        )
        if gpus and share == 0:
            raise WorkloadError(f"{row.place}, column gpu_milli: 0 where num_gpu is {gpus}")
        if gpus and share < WHOLE_GPU_MILLI:
            shared += 1
            continue
        wanted = row.cells.get("gpu_spec", "").strip()
        if gpus and wanted:
            product = _find_model(wanted, models)
            if product is None:
                unknown_model += 1
                continue
            plan = msgspec.structs.replace(plan, annotations={GPU_MODEL_KEY: product})
        pods.append(plan)
    if not pods:
        raise WorkloadError(f"{path}: holds no pod that asks for whole GPUs or none")
    return Trace(tuple(pods), shared, unknown_model)


def _read_rows(path: Path) -> Iterator[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: not UTF-8 text ({error.reason})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = _read_header(path, next(reader, []))
        for cells in reader:
            if not cells:
                continue
            place = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise WorkloadError(
                    f"{place}: {len(cells)} cells where the header has {len(header)}"
                )
            yield _Row(dict(zip(header, cells, strict=True)), place)
    except csv.Error as error:
        raise WorkloadError(f"{path}, line {reader.line_num}: {error}") from None


def _read_header(path: Path, cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if not header:
        raise WorkloadError(f"{path}: is empty")
    for column in REQUIRED_COLUMNS:
        if header.count(column) != 1:
            what = "no column" if column not in header else "more than one column"
            raise WorkloadError(f"{path}, line 1: {what} {column}")
    return header


def _life(row: _Row, dice: random.Random) -> float:
    """Return the seconds from creation to deletion, drawn evenly by logarithm where unknown."""
    created, deleted = row.time("creation_time"), row.time("deletion_time")
    if created is None or deleted is None:
        return math.exp(dice.uniform(math.log(_SHORTEST_LIFE), math.log(_LONGEST_LIFE)))
    if deleted < created:
        raise WorkloadError(f"{row.place}, column deletion_time: earlier than creation_time")
    return deleted - created


def _find_model(wanted: str, models: Sequence[str]) -> str | None:
    """Return the first product among `models` that the bar-separated codes allow.

    >>> _find_model("T4|V100M16", ["NVIDIA L40S", "Tesla V100-SXM2-16GB"])
    'Tesla V100-SXM2-16GB'
    """
    codes = [code.strip() for code in wanted.split("|")]
    for code in codes:
        pattern = _MODEL_PATTERNS.get(code)
        for model in models:
            if pattern is not None and re.search(pattern, model):
                return model
    return None
