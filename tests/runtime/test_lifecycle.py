"""The life of a daemon: in threads, in an event loop, and as a process that gets signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from runtime.errors import WorkerEndedError
from runtime.lifecycle import Workers, run_until_signal, start


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers that are shut down after the test."""
    workers = Workers()
    yield workers
    workers.shut_down(5)


def test_a_worker_that_raises_is_the_cause_of_the_stop(workers: Workers) -> None:
    """The exception ends the wait and makes the exit code 1."""

    def fail() -> None:
        raise RuntimeError("disk is gone")

    workers.start("publisher", fail)
    assert workers.wait(10)
    assert str(workers.cause) == "disk is gone"
    assert workers.exit_code() == 1


def test_a_worker_that_ends_by_itself_is_a_fault(workers: Workers) -> None:
    """An eternal thread that returns is the cause, by its name."""
    workers.start("registrar", lambda: None)
    assert workers.wait(10)
    assert isinstance(workers.cause, WorkerEndedError)
    assert workers.cause.name == "registrar"


def test_an_asked_stop_is_no_fault(workers: Workers) -> None:
    """The first cause counts, and it is not an error."""
    workers.ask_stop("drained")
    workers.ask_stop("later")
    assert workers.wait(10)
    assert (workers.cause, workers.exit_code()) == ("drained", 0)


def test_wait_gives_up_in_time(workers: Workers) -> None:
    """Without a cause the wait ends by its timeout."""
    assert not workers.wait(0.01)


def test_the_last_started_stops_first() -> None:
    """Workers stop in the opposite order, each before the next is asked."""
    workers, order = Workers(), []

    def worker(name: str) -> None:
        over = threading.Event()

        def run() -> None:
            over.wait()
            order.append(f"{name} ended")

        def stop() -> None:
            order.append(f"{name} asked")
            over.set()

        workers.start(name, run, stop)

    for name in ("a", "b"):
        worker(name)
    assert workers.shut_down(5) == []
    assert order == ["b asked", "b ended", "a asked", "a ended"]


def test_threads_without_a_stop_watch_the_event() -> None:
    """`stopping` ends the loops that look at it; threads carry their names."""
    workers = Workers()
    thread = workers.start("poller", workers.stopping.wait)
    assert thread.name == "poller"
    assert workers.shut_down(5) == []
    assert not thread.is_alive()


def test_stuck_threads_are_named() -> None:
    """The deadline holds for all together; who is stuck is said."""
    workers, never = Workers(), threading.Event()
    workers.start("stuck", never.wait)
    assert workers.shut_down(0.05) == ["stuck"]
    never.set()


def test_a_stop_that_raises_does_not_keep_the_others(workers: Workers) -> None:
    """Every worker is asked to stop."""
    over = threading.Event()

    def refuse() -> None:
        raise OSError("no")

    first = workers.start("first", over.wait, over.set)
    workers.start("second", workers.stopping.wait, refuse)
    assert workers.shut_down(5) == []
    assert not first.is_alive()


async def test_main_that_ends_is_code_0_and_that_raises_code_1() -> None:
    """The exit code says whether main failed."""

    async def fine() -> None:
        """End well."""
        await asyncio.sleep(0)

    async def fail() -> None:
        """End badly."""
        raise RuntimeError("no")

    assert await run_until_signal(fine()) == 0
    assert await run_until_signal(fail()) == 1


async def test_an_eternal_task_that_ends_fails_its_group() -> None:
    """The other tasks of the group are cancelled and the cause is the ended task's name."""

    async def nothing() -> None:
        """End at once."""
        await asyncio.sleep(0)

    async def both() -> None:
        """Run one task that ends and one that does not."""
        async with asyncio.TaskGroup() as group:
            start(group, "feed", nothing())
            start(group, "other", asyncio.Event().wait())

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    [cause] = caught.value.exceptions
    assert isinstance(cause, WorkerEndedError)
    assert cause.name == "feed"


THREADS = """
import sys
from runtime.lifecycle import Workers
workers = Workers()
workers.take_signals()
workers.start("poller", workers.stopping.wait)
print("ready", flush=True)
workers.wait()
if sys.argv[1] == "slow":
    print("slow", flush=True)
    import threading; threading.Event().wait()
workers.shut_down()
print("stopped by", workers.cause, flush=True)
sys.exit(workers.exit_code())
"""

ASIDE = """
import signal, sys, threading
from runtime.lifecycle import Workers
workers = Workers()
workers.take_signals()
def hit() -> None:
    # When the main thread lies down cannot be seen; long after it is about to.
    workers.stopping.wait(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    workers.stopping.wait()
workers.start("hit", hit)
workers.wait()
workers.shut_down()
print("stopped by", workers.cause, flush=True)
sys.exit(workers.exit_code())
"""

HEARD = """
import os, signal, sys, time
from runtime.lifecycle import Workers
workers = Workers()
heard = []
def note(*_: object) -> None:
    heard.append(1)
    os.write(1, b"%d\\n" % len(heard))
def work() -> None:
    while not workers.stopping.is_set():
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        time.sleep(0.003)
workers.take_signals()
signal.signal(signal.SIGHUP, note)
for name in ("a", "b", "c"):
    workers.start(name, work)
print("ready", flush=True)
workers.wait()
workers.shut_down()
sys.exit(workers.exit_code())
"""

LOOP = """
import asyncio, sys
from runtime.lifecycle import run_until_signal
async def main():
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        if sys.argv[1] == "slow":
            print("slow", flush=True)
            await asyncio.Event().wait()
        print("stopped by", "SIGTERM", flush=True)
sys.exit(asyncio.run(run_until_signal(main())))
"""


@pytest.mark.parametrize("program", [THREADS, LOOP], ids=["threads", "loop"])
def test_a_signal_stops_in_order_with_code_0(program: str) -> None:
    """SIGTERM lets the daemon clean up and exit with 0."""
    with started(program, "quick") as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    assert rest.splitlines()[-1] == "stopped by SIGTERM"
    assert process.returncode == 0


@pytest.mark.parametrize("program", [THREADS, LOOP], ids=["threads", "loop"])
def test_a_second_signal_kills(program: str) -> None:
    """A daemon that is stuck in its stop dies by the second signal."""
    with started(program, "slow") as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGTERM)
        while line_of(process) != "slow":
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_is_heard_whichever_thread_gets_it() -> None:
    """The kernel may give it to a thread that waits for something else."""
    with started(ASIDE, "quick") as process:
        rest, _ = process.communicate(timeout=20)
    assert rest.splitlines()[-1] == "stopped by SIGTERM"
    assert process.returncode == 0


def test_no_signal_waits_for_the_next() -> None:
    """However close upon each other, in whatever moment: each is handled before another comes."""
    with started(HEARD, "quick") as process:
        assert line_of(process) == "ready"
        for count in range(1, 501):
            process.send_signal(signal.SIGHUP)
            assert line_of(process) == str(count)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def started(program: str, mode: str) -> subprocess.Popen[str]:
    """Start a small daemon."""
    return subprocess.Popen(
        [sys.executable, "-c", program, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """Read its next line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the process ended early"
    return line.strip()
