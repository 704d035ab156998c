"""Allocates and frees GPUs thousands of times under random faults, and looks for what is left.

    python -m tests.soak.run --cycles 10000

A cycle is a pod that was given GPUs and has ended, or was refused. Faults come at random: XIDs,
lost GPUs, links, heat, memory errors, driver reloads, cordons, deleted sockets, kubelet restarts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from tests.soak.node import GPUS, Sample, SoakNode
from tests.waiting import wait_until

FAULT_EVERY: Final = 25
"""Cycles between two faults, on average."""
XIDS: Final = (13, 31, 48, 79, 94, 119)


class Outcome(msgspec.Struct, frozen=True):
    """What a soak found. `samples` are of the plugin's process, the first after the warm-up."""

    cycles: int
    seconds: float
    pods_run: int
    pods_refused: int
    exact_sets: int
    faults: dict[str, int]
    double_allocated: int
    plugin_starts: int
    books_agree: bool
    samples: tuple[Sample, ...]

    def growth(self) -> Sample:
        """Return how much more there was at the end than after the warm-up."""
        first, last = self.samples[0], self.samples[-1]
        return Sample(
            last.cycles - first.cycles,
            round(last.rss_mib - first.rss_mib, 1),
            round(last.peak_mib - first.peak_mib, 1),
            last.threads - first.threads,
            last.files - first.files,
        )

    def problems(self) -> list[str]:
        """Return what is not as it should be."""
        grown = self.growth()
        checks = {
            "GPUs were given twice": self.double_allocated > 0,
            "the books do not agree": not self.books_agree,
            "the plugin died": self.plugin_starts > 1,
            # The allocator gives pages back late; a leak of 1 KiB a cycle would show as 10 MiB.
            f"memory grew by {grown.rss_mib} MiB": grown.rss_mib > 8,
            f"memory peaked {grown.peak_mib} MiB higher": grown.peak_mib > 32,
            f"{grown.threads} threads more": grown.threads > 3,
            f"{grown.files} files more": grown.files > 6,
        }
        return [problem for problem, wrong in checks.items() if wrong]


class Soak:
    """One run on one node."""

    def __init__(self, node: SoakNode, cycles: int) -> None:
        self._node = node
        self._random = node.random
        self._cycles = cycles
        self._held: dict[str, frozenset[str]] = {}
        self._uids: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._run = self._refused = self._exact = self._double = 0
        self._kinds: dict[str, Callable[[], None]] = {
            "xid": self._xid,
            "lost": self._lose,
            "link": self._link,
            "heat": self._heat,
            "ecc": lambda: node.fault("ecc", gpu=self._gpu()),
            "driver": lambda: node.fault("driver"),
            "cordon": self._cordon,
            "own-socket": self._delete_socket,
            "kubelet-socket": node.kubelet.wipe_socket,
            "kubelet": node.kubelet.restart,
        }

    def run(self, progress: Callable[[int], None]) -> Outcome:
        """Run all cycles, then wait for quiet and compare the books."""
        begun = time.monotonic()
        warm = max(20, self._cycles // 10)
        samples: list[Sample] = []
        for cycle in range(self._cycles):
            if cycle >= warm and (cycle - warm) % max(1, (self._cycles - warm) // 8) == 0:
                samples.append(self._node.sample(cycle))
            if self._random.random() < 1 / FAULT_EVERY:
                self._befall()
            self._cycle(f"p{cycle}")
            progress(cycle + 1)
        agree = self._settle()
        samples.append(self._node.sample(self._cycles))
        return Outcome(
            cycles=self._cycles,
            seconds=round(time.monotonic() - begun, 1),
            pods_run=self._run,
            pods_refused=self._refused,
            exact_sets=self._exact,
            faults=dict(sorted(self._faults.items())),
            double_allocated=self._double,
            plugin_starts=self._node.plugin.starts,
            books_agree=agree,
            samples=tuple(samples),
        )

    def _cycle(self, name: str) -> None:
        count = self._random.randint(1, 4)
        free = self._make_room(count)
        wanted = None
        if self._random.random() < 0.8:
            wanted = tuple(self._random.sample(free, count))
        uid = self._node.bind(name, count, wanted)
        got = self._node.outcome(name)
        if got is None:
            self._refused += 1
            self._node.delete(name)
            return
        self._run += 1
        self._exact += wanted is not None and got == frozenset(wanted)
        self._double += any(got & held for held in self._held.values())
        self._held[name] = got
        self._uids[uid] = name

    def _make_room(self, count: int) -> list[str]:
        """End pods until enough GPUs are free and well; return those that are."""
        while True:
            state = self._node.state()
            assert state is not None
            away = state.unhealthy.keys() | state.withheld.keys()
            held = {uuid for uuids in self._held.values() for uuid in uuids}
            every = [self._node.uuid(index) for index in range(GPUS)]
            free = [uuid for uuid in every if uuid not in away and uuid not in held]
            if len(free) >= count and self._node.allocatable() >= count:
                return free
            if self._held:
                self._end(self._random.choice(sorted(self._held)))
            else:
                time.sleep(0.05)  # all are sick: they recover by the clock

    def _end(self, name: str) -> None:
        self._node.delete(name)
        del self._held[name]

    def _befall(self) -> None:
        kind = self._random.choice(sorted(self._kinds))
        self._faults[kind] += 1
        self._kinds[kind]()

    def _gpu(self) -> int:
        return self._random.randrange(GPUS)

    def _xid(self) -> None:
        self._node.fault("xid", gpu=self._gpu(), xid=self._random.choice(XIDS))

    def _lose(self) -> None:
        gpu = self._gpu()
        self._node.fault("lost", gpu=gpu, event=self._random.random() < 0.5)
        self._node.fault("recover", gpu=gpu)

    def _link(self) -> None:
        gpu = self._gpu()
        self._node.fault("link-down", gpu=gpu, link=self._random.randrange(18))
        self._node.fault("link-up", gpu=gpu)

    def _heat(self) -> None:
        self._node.fault("thermal", gpu=self._gpu(), celsius=self._random.choice((40, 90)))

    def _cordon(self) -> None:
        self._node.annotate(self._random.choice((None, None, str(self._gpu()))))

    def _delete_socket(self) -> None:
        for path in self._node.kubelet.device_plugins_dir.glob("gputopo-*.sock"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _settle(self) -> bool:
        """Heal everything, wait until nothing changes; return whether all books say the same."""
        node = self._node
        node.annotate(None)
        node.fault("recover")
        wait_until(lambda: node.allocatable() == GPUS, timeout=120, what="all GPUs are well")

        def agree() -> bool:
            state = node.state()
            published = {
                self._uids.get(uid, uid): frozenset(uuids)
                for uid, uuids in (state.allocations if state else {}).items()
            }
            return published == node.in_kubelets_books() == self._held

        try:
            wait_until(agree, timeout=30, what="the books agree")
            for name in sorted(self._held):
                self._end(name)
            wait_until(agree, timeout=30, what="all books are empty")
        except AssertionError:
            return False
        return True


def soak(cycles: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Outcome:
    """Run a soak on a node of its own."""
    with SoakNode(seed) as node:
        return Soak(node, cycles).run(progress)


def main() -> int:
    """Run by hand; prints one JSON object, 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    def progress(done: int) -> None:
        if done % 500 == 0:
            sys.stderr.write(f"{done} of {asked.cycles}\n")

    outcome = soak(asked.cycles, asked.seed, progress)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")
    for problem in outcome.problems():
        sys.stderr.write(f"{problem}\n")
    return 1 if outcome.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
