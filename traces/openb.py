"""Reading node and pod lists in the openb trace's CSV format, from text.

Columns are found by name, in any order; those that the format has beyond the needed ones may be
absent (the multigpu lists have neither gpu_spec nor times). A fault names file, line and column.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from traces.errors import TraceError

WHOLE_GPU_MILLI: Final = 1000
NODE_COLUMNS: Final = ("sn", "cpu_milli", "memory_mib", "gpu")
TASK_COLUMNS: Final = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
# Beyond what any machine has, and small enough for sums over a million rows in 64 bits.
_MOST: Final = 10**12
_MOST_GPUS: Final = 64


class Node(msgspec.Struct, frozen=True):
    """A machine of the trace; CPU in thousandths of a core, memory in MiB."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str = ""


class TaskClass(msgspec.Struct, frozen=True):
    """What a task asks for: tasks of one class are treated alike.

    `share_milli` is asked of each of `gpus` GPUs, in thousandths; below 1000 with one GPU only,
    and 0 without GPUs. `models` are the GPU models that will do, sorted; empty takes any.
    """

    cpu_milli: int
    memory_mib: int
    gpus: int
    share_milli: int
    models: tuple[str, ...] = ()

    @property
    def gpu_milli(self) -> int:
        """The GPU thousandths asked for in all."""
        return self.gpus * self.share_milli

    @property
    def shares(self) -> bool:
        """Whether it asks for a part of one GPU."""
        return 0 < self.share_milli < WHOLE_GPU_MILLI


class Times(msgspec.Struct, frozen=True):
    """When a task was created, began to run and ended, in seconds from the trace's start.

    `begun` is None for a task that never ran.
    """

    created: float
    ended: float
    begun: float | None = None

    @property
    def life(self) -> float:
        """How long it ran; of one that never did, how long it was there."""
        return self.ended - (self.created if self.begun is None else self.begun)


class Task(msgspec.Struct, frozen=True):
    """A row of a pod list, and its line; `times` are None where the list has none."""

    name: str
    kind: TaskClass
    times: Times | None = None
    line: int = 0


def read_nodes(text: str, source: str) -> tuple[Node, ...]:
    """Return the nodes of a list in its order; raises TraceError. `source` is for its text."""
    nodes = []
    for row in _read_rows(text, source, NODE_COLUMNS):
        gpus = row.number("gpu", _MOST_GPUS)
        node = Node(
            name=row.name("sn"),
            cpu_milli=row.number("cpu_milli"),
            memory_mib=row.number("memory_mib"),
            gpus=gpus,
            model=row.text("model") if gpus else "",
        )
        nodes.append(node)
    if not nodes:
        raise TraceError(source, 0, "", "holds no node")
    return tuple(nodes)


def read_tasks(text: str, source: str) -> tuple[Task, ...]:
    """Return the tasks of a list in its order; raises TraceError. `source` is for its text."""
    tasks = []
    kinds: dict[TaskClass, TaskClass] = {}
    for row in _read_rows(text, source, TASK_COLUMNS):
        name = row.name("name")
        gpus = row.number("num_gpu", _MOST_GPUS)
        share = row.number("gpu_milli", WHOLE_GPU_MILLI)
        if gpus and not share:
            raise row.fault("gpu_milli", f"0 where num_gpu is {gpus}")
        if gpus > 1 and share < WHOLE_GPU_MILLI:
            raise row.fault("gpu_milli", f"a share ({share}) of {gpus} GPUs: only of one")
        models = {model.strip() for model in row.text("gpu_spec").split("|")} - {""}
        kind = TaskClass(
            cpu_milli=row.number("cpu_milli"),
            memory_mib=row.number("memory_mib"),
            gpus=gpus,
            share_milli=share if gpus else 0,
            # A model list without GPUs would say nothing about the task.
            models=tuple(sorted(models)) if gpus else (),
        )
        # Equal classes are one object: a list of 8152 tasks has some 150.
        tasks.append(Task(name, kinds.setdefault(kind, kind), _read_times(row), row.line))
    if not tasks:
        raise TraceError(source, 0, "", "holds no task")
    return tuple(tasks)


def _read_times(row: _Row) -> Times | None:
    created, ended, begun = map(row.time, ("creation_time", "deletion_time", "scheduled_time"))
    if created is None or ended is None:
        return None
    if ended < created:
        raise row.fault("deletion_time", "earlier than creation_time")
    if begun is not None and not created <= begun <= ended:
        raise row.fault("scheduled_time", "not between creation_time and deletion_time")
    return Times(created, ended, begun)


class _Row:
    """A row's cells by column, and where it stands."""

    def __init__(self, cells: dict[str, str], source: str, line: int, seen: set[str]) -> None:
        self._cells = cells
        self._source = source
        self.line = line
        self._seen = seen

    def fault(self, column: str, problem: str) -> TraceError:
        """Make the error that names this row's column."""
        return TraceError(self._source, self.line, column, problem)

    def text(self, column: str) -> str:
        """Return a cell, empty where the list lacks the column."""
        return self._cells.get(column, "").strip()

    def number(self, column: str, highest: int = _MOST) -> int:
        """Return a whole number of 0 to `highest`."""
        text = self.text(column)
        # The length first: Python refuses to read a number of thousands of digits.
        if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > highest:
            raise self.fault(column, f"{text[:40]!r} is not a whole number of 0 to {highest}")
        return int(text)

    def time(self, column: str) -> float | None:
        """Return seconds, None for an empty cell or a column that the list lacks."""
        text = self.text(column)
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < 0:
            raise self.fault(column, f"{text[:40]!r} is not a time in seconds")
        return seconds

    def name(self, column: str) -> str:
        """Return a cell that is not empty and that no row before had."""
        text = self.text(column)
        if not text:
            raise self.fault(column, "is empty")
        if text in self._seen:
            raise self.fault(column, f"{text!r} occurs twice")
        self._seen.add(text)
        return text


def _read_rows(text: str, source: str, needed: Sequence[str]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    seen: set[str] = set()
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not header:
            raise TraceError(source, 0, "", "is empty")
        for column in needed:
            if column not in header:
                raise TraceError(source, 1, column, "the column is missing")
        for column in header:
            if column and header.count(column) > 1:
                raise TraceError(source, 1, column, "the column occurs twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                problem = f"{len(cells)} cells where the header has {len(header)}"
                raise TraceError(source, reader.line_num, "", problem)
            yield _Row(dict(zip(header, cells, strict=True)), source, reader.line_num, seen)
    except csv.Error as error:
        raise TraceError(source, reader.line_num, "", str(error)) from None
