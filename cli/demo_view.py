"""How a demo looks: a table that fills on a terminal, plain lines elsewhere, the final summary."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from embedded.picture import NodeRow, Picture
from embedded.reports import Report

_COLOURS: Final = ("green", "cyan", "magenta", "yellow", "blue", "bright_red", "bright_cyan")
_FEW_NOTES: Final = 6
_FEW_REASONS: Final = 4
_PLAIN_SECONDS: Final = 3.0


class View(Protocol):
    """Where a run shows itself. `judges`: whether it shows the best sets, which cost time."""

    judges: bool

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; what is shown stays."""

    def say(self, message: str) -> None:
        """Tell what goes on before there is a picture."""

    def announce(self, message: str) -> None:
        """Tell something that stays in sight, whatever is shown later."""

    def look(self, picture: Picture) -> None:
        """Show how it stands."""


class LiveView:
    """The table on a terminal."""

    judges = True

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, message: str) -> None:
        """Show a line."""
        self._live.update(Text(f"{time.monotonic() - self._began:5.1f} s  {message}"))

    def announce(self, message: str) -> None:
        """Print it above the table, unwrapped so that an address can be copied."""
        self._live.console.print(Text(message), soft_wrap=True)

    def look(self, picture: Picture) -> None:
        """Show the table."""
        self._live.update(draw_picture(picture, self._live.console.width))


class PlainView:
    """A line on standard error now and then; says nothing if `quiet`."""

    judges = False

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._next = 0.0
        self._noted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def say(self, message: str) -> None:
        """Print it."""
        self._print(message)

    def announce(self, message: str) -> None:
        """Print it, also if `quiet`: standard error is free, and it was asked for."""
        print(message, file=sys.stderr, flush=True)

    def look(self, picture: Picture) -> None:
        """Print the counters every few seconds, and each new note at once."""
        for note in picture.notes[self._noted :]:
            self._print(note)
        self._noted = len(picture.notes)
        if picture.seconds >= self._next:
            self._next = picture.seconds + _PLAIN_SECONDS
            self._print(f"{picture.seconds:5.1f} s  {describe_counts(picture)}")

    def _print(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)


def describe_counts(picture: Picture) -> str:
    """Say the counters in a line."""
    counts = picture.counts
    gpus = sum(len(row.cells) for row in picture.rows)
    held = sum(bool(cell.holder) for row in picture.rows for cell in row.cells)
    return (
        f"{picture.message}: {counts.created} pods, {counts.bound} bound, "
        f"{counts.running} running, {counts.pending} pending, {counts.completed} completed, "
        f"{counts.failed} failed; {held} of {gpus} GPUs in use"
    )


def draw_picture(picture: Picture, width: int = 200) -> Group:
    """Draw the table, the counters beneath, and the latest notes.

    Where `width` is too small for all columns, the best sets go first, then the machines.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = {
        "node": [Text(row.name) for row in picture.rows],
        "machine": [Text(row.machine) for row in picture.rows],
        "GPUs by pod": [draw_cells(row) for row in picture.rows],
        "free": [Text(str(row.free)) for row in picture.rows],
        "best set left": [Text(describe_best(row)) for row in picture.rows],
    }
    widths = {
        name: max([len(name), *(cell.cell_len for cell in cells)])
        for name, cells in columns.items()
    }
    for optional in ("best set left", "machine"):
        if sum(widths.values()) + 2 * (len(widths) - 1) > width:
            del columns[optional], widths[optional]
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name == "free" else "left")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    parts: list[RenderableType] = [
        table,
        Text(""),
        Text(f"{picture.seconds:5.1f} s  {describe_counts(picture)}"),
    ]
    parts += [Text(note, style="dim") for note in picture.notes[-_FEW_NOTES:]]
    return Group(*parts)


def draw_cells(row: NodeRow) -> Text:
    """Draw a node's GPUs: a pod's have its colour and the end of its name, free ones are dots."""
    text = Text()
    for cell in row.cells:
        if not cell.healthy:
            text.append(" ✗ ", style="bold red")
        elif not cell.holder:
            text.append(" · ", style="dim")
        else:
            colour = _COLOURS[sum(cell.holder.encode()) % len(_COLOURS)]
            text.append(cell.holder[-3:].rjust(3), style=f"black on {colour}")
        text.append(" ")
    return text


def describe_best(row: NodeRow) -> str:
    """Say the best set that the free GPUs give."""
    if not row.best_size:
        return "-" if row.cells else "starting"
    return f"{row.best_size} at {row.best_gbs:g} GB/s"


def summarise(report: Report) -> str:
    """Say what the run came to, in lines."""
    kinds = ", ".join(
        name if count == 1 else f"{count} x {name}" for name, count in report.machines.items()
    )
    ended = f" and {report.completed_honoured} of {report.completed} completed ones"
    lines = [
        f"{report.nodes} nodes ({kinds}), {report.gpus_in_use} of {report.gpus} GPUs in use",
        (
            f"{report.pods} pods: {report.bound} bound, {report.running} running, "
            f"{report.completed} completed, {report.pending} pending, {report.failed} failed"
        ),
        (
            f"{report.honoured} of {report.running} running pods"
            f"{ended if report.completed else ''} saw exactly the set in their annotation"
        ),
        (
            f"{report.mismatched} mismatched, {report.drifted} drifted after an injected GPU "
            f"loss, {report.double_allocated} GPUs given twice"
        ),
    ]
    left = report.left_out
    if left.shared or left.gpu_spec or left.not_reached:
        lines.append(
            f"left out of the list: {left.shared} pods that share a GPU, {left.gpu_spec} for "
            f"models that no machine here has; {left.not_reached} not reached"
        )
    if report.full_after_seconds is not None:
        lines.append(f"the cluster was full after {report.full_after_seconds:.1f} s")
    lines += _list("pending", report.pending_reasons)
    lines += _list("failed", report.failed_reasons)
    for fault in report.faults:
        told = (
            "did not recover"
            if fault.recovered_after is None
            else f"well again after {fault.recovered_after:.1f} s"
        )
        lines.append(f"fault at {fault.at:.1f} s: {fault.what}; {told}")
    if report.story:
        lines += ["what the nodes tell:", *(f"  {line}" for line in report.story)]
    lines += [
        f"started again: {name}, {times} times" if times > 1 else f"started again: {name}"
        for name, times in report.restarts.items()
    ]
    lines += [
        f"mismatch: {each.pod}/{each.container} on {each.node}: {each.why}; wanted "
        f"{', '.join(each.wanted) or 'none'}, saw {', '.join(each.seen) or 'none'}"
        for each in report.mismatches
    ]
    lines += [f"given twice: {each}" for each in report.doubles]
    if not report.settled:
        lines.append("the run was ended before everything had settled")
    verdict = "as it should be" if report.well else "NOT as it should be"
    lines.append(
        f"{verdict}; {report.seconds:.1f} s, of which {report.startup_seconds:.1f} s to start"
    )
    return "\n".join(lines)


def _list(word: str, reasons: dict[str, int]) -> list[str]:
    told = [f"{count} {word}: {reason}" for reason, count in [*reasons.items()][:_FEW_REASONS]]
    rest = sum([*reasons.values()][_FEW_REASONS:])
    return [*told, f"{rest} {word} for other reasons"] if rest else told
