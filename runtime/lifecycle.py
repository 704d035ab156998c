"""The life of a daemon: named workers that may not end by themselves, signals, an ordered stop.

`Workers` is for threads (the plugin), `run_until_signal` and `start` for asyncio (the scheduler).
SIGTERM or SIGINT asks for a stop; a second one kills at once. A worker that ends or raises
before it was asked to is a fault: it is logged and becomes the cause of the stop, and the kubelet
starts the process again.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import structlog

from runtime.bell import Bell
from runtime.errors import WorkerEndedError

STOP_DEADLINE = 10.0
"""Seconds for an ordered stop; the kubelet's own patience is 30."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger("runtime.lifecycle")


class _Worker:
    """A thread, and what makes it end."""

    def __init__(self, thread: threading.Thread, stop: Callable[[], None] | None) -> None:
        self.thread = thread
        self.stop = stop


class Workers:
    """The threads of a daemon.

    `stopping` is set when the stop begins; workers without a `stop` of their own wait for it.
    `cause` is then the signal's name, the exception, or what `ask_stop` was given.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.cause: object = None
        self._workers: list[_Worker] = []
        # put() may be called inside a signal handler, an Event's set() may not.
        self._asked: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._bell = Bell()
        self._signals = 0

    def start(
        self, name: str, run: Callable[[], object], stop: Callable[[], None] | None = None
    ) -> threading.Thread:
        """Start an eternal thread. `stop` is called once, from another thread, to end it."""
        thread = threading.Thread(target=self._guard, args=(name, run), name=name, daemon=True)
        self._workers.append(_Worker(thread, stop))
        thread.start()
        return thread

    def ask_stop(self, cause: object) -> None:
        """Ask for the stop; the first cause counts. Never blocks, works in signal handlers."""
        self._asked.put(cause)
        self._bell.ring()

    def take_signals(self) -> None:
        """Let SIGTERM and SIGINT ask for the stop; `wait` hears every other one too.

        Main thread only.
        """
        self._bell.hear_signals()
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody asks for the stop; False when `timeout` seconds passed before."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self.stopping.is_set():
            try:
                self.cause = self._asked.get_nowait()
            except queue.Empty:
                # Python runs signal handlers between two steps of the main thread, thus after this.
                if not self._bell.wait(end - time.monotonic()):
                    return False
                continue
            self.stopping.set()
            _log.info("stopping", cause=str(self.cause))
        return True

    def shut_down(self, deadline: float = STOP_DEADLINE) -> list[str]:
        """Stop the threads, the last started first; return the names of those that are stuck."""
        if not self.stopping.is_set():
            self.cause = self.cause or "shut_down"
            self.stopping.set()
        end = time.monotonic() + deadline
        stuck = []
        for worker in reversed(self._workers):
            if worker.stop is not None:
                try:
                    worker.stop()
                except Exception:  # noqa: BLE001 -- the others must be stopped all the same
                    _log.exception("stop failed", worker=worker.thread.name)
            if worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, end - time.monotonic()))
            if worker.thread.is_alive():
                stuck.append(worker.thread.name)
        if stuck:
            _log.error("threads do not stop", stuck=stuck, deadline=deadline)
        return stuck

    def exit_code(self) -> int:
        """Return 0 after a signal or an asked stop, 1 when a worker was the cause."""
        return 1 if isinstance(self.cause, BaseException) else 0

    def _guard(self, name: str, run: Callable[[], object]) -> None:
        cause: BaseException
        try:
            run()
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the cause
            cause = error
        else:
            if self.stopping.is_set():
                return
            cause = WorkerEndedError(name)
        if self.stopping.is_set():
            _log.warning("failed while stopping", worker=name, exc_info=cause)
            return
        _log.error("worker ended", worker=name, exc_info=cause)
        self.ask_stop(cause)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            _die_by(number)
        self.ask_stop(signal.Signals(number).name)


async def run_until_signal(main: Coroutine[Any, Any, None], deadline: float = STOP_DEADLINE) -> int:
    """Run `main` as a task until it ends or a signal comes; return the exit code.

    A signal cancels it and gives it `deadline` seconds to clean up: 0, or 1 when it is stuck.
    `main` that ends by itself: 0. `main` that raises: the error is logged, 1.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(main, name="main")
    asked = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        """Cancel at the first signal, die at the second."""
        if asked.is_set():
            _die_by(number)
        _log.info("stopping", cause=number.name)
        asked.set()
        task.cancel(number.name)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        waiter = loop.create_task(asked.wait(), name="signal")
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        done, _ = await asyncio.wait({task}, timeout=deadline)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    if not done:
        _log.error("main does not stop", deadline=deadline)
        return 1
    if task.cancelled():
        return 0
    error = task.exception()
    if error is not None:
        _log.error("failed", exc_info=error)
        return 1
    return 0


def start(
    group: asyncio.TaskGroup, name: str, run: Coroutine[Any, Any, object]
) -> asyncio.Task[None]:
    """Start an eternal task in a group; if it ends by itself, the group fails with the cause."""
    return group.create_task(_guard_task(name, run), name=name)


async def _guard_task(name: str, run: Coroutine[Any, Any, object]) -> None:
    try:
        await run
    except Exception:
        _log.exception("worker ended", worker=name)
        raise
    _log.error("worker ended", worker=name)
    raise WorkerEndedError(name)


def _die_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
