"""The runs of `gputopo simulate`, in processes of their own, with a bar that tells how far."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from scheduler.simulation.boards import Machines
from scheduler.simulation.dynamic import Departures
from scheduler.simulation.measures import Outcome
from scheduler.simulation.runs import run_departures, run_once
from traces.openb import Node, Task


class Job(msgspec.Struct, frozen=True):
    """What a process is asked for. With `copies` tasks depart."""

    policy: str
    seed: int
    load: float
    copies: int = 0


class Lists(msgspec.Struct, frozen=True):
    """What all jobs share."""

    nodes: tuple[Node, ...] = ()
    tasks: tuple[Task, ...] = ()
    machines: Machines | None = None


class Done(msgspec.Struct, frozen=True):
    """A job's figures, and its wall time in seconds, reading the lists apart."""

    figures: Outcome | Departures
    seconds: float


def run_all(lists: Lists, jobs: Sequence[Job], processes: int) -> dict[tuple[str, int], Done]:
    """Return what became of each (policy, seed)."""
    results = _run_in_pool(lists, jobs, processes)
    return {(job.policy, job.seed): done for job, done in _show_progress(results, len(jobs))}


# Once in each process: the same for all of its jobs.
_lists = Lists()


def _receive(lists: Lists) -> None:
    global _lists  # noqa: PLW0603 -- how a pool's process keeps what its jobs share
    _lists = lists


def _run_one(job: Job) -> tuple[Job, Done]:
    started = time.perf_counter()
    figures: Outcome | Departures
    if job.copies:
        figures = run_departures(
            _lists.nodes,
            _lists.tasks,
            job.policy,
            seed=job.seed,
            load=job.load,
            copies=job.copies,
            machines=_lists.machines,
        )
    else:
        figures = run_once(
            _lists.nodes,
            _lists.tasks,
            job.policy,
            seed=job.seed,
            load=job.load,
            machines=_lists.machines,
        )
    return job, Done(figures, round(time.perf_counter() - started, 3))


def _run_in_pool(lists: Lists, jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Done]]:
    processes = min(processes, len(jobs))
    if processes == 1:
        _receive(lists)
        yield from map(_run_one, jobs)
        return
    # Spawned, not forked: no thread's locks come along, and it is the same on every system.
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_receive,
        initargs=(lists,),
    ) as pool:
        futures = [pool.submit(_run_one, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _show_progress(results: Iterator[tuple[Job, Done]], total: int) -> Iterator[tuple[Job, Done]]:
    """Pass results on, with a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("runs", total=total)
        for result in results:
            progress.update(bar, advance=1, description=result[0].policy)
            yield result
