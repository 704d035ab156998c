"""Choosing a set: our tables beside the reference allocator's search, same machines, same GPUs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final

from tests.bench import reference_allocator
from tests.bench.reference_allocator import Asked
from tests.bench.rows import Row, fit_exponent, summarise
from tests.topology.machines import machine_class
from topology.catalogue import load_machine
from topology.choice import Request
from topology.gpuset import EMPTY, gpuset
from topology.gpuset import size as size_of
from topology.policies import Chooser
from topology.profiles import TRAINING
from topology.tables import Tables

MACHINES: Final = {
    8: ("dgx1-v100", "hgx-h100-8x-ib", "a40-8x-bridges", "l40s-8x"),
    10: ("a40-10x-two-switches",),
    16: ("dgx2-16x-v100",),
}
GROWING: Final = ("l40s-4x", "l40s-8x", "a40-10x-two-switches", "dgx2-16x-v100")
"""Machines of ever more GPUs, for how choosing half of them grows."""

_GROWTH: Final = "Growth with the number of GPUs (exponent of the best fit)"
_SPEED: Final = "Choosing a set, beside the reference allocator"
_QUALITY: Final = "Sets chosen, beside the reference allocator's"


def measure(*, quick: bool) -> Iterator[Row]:
    """Time both on random free sets of each size, and compare what they chose."""
    for gpus, names in MACHINES.items():
        for name in names[:1] if quick else names:
            yield from _measure_machine(name, gpus, quick=quick)
    yield from _measure_growth()


def _measure_growth() -> Iterator[Row]:
    """Let half of all GPUs be chosen, on machines of four sizes."""
    sizes, ours, theirs, built = [], [], [], []
    for name in GROWING:
        cls = machine_class(load_machine(name))
        begun = time.perf_counter()
        chooser = Chooser(Tables(cls), TRAINING)
        built.append(time.perf_counter() - begun)
        sizes.append(cls.count)
        asked = Asked(tuple(range(cls.count)), cls.count // 2)
        ours.append(_time_choice(chooser, asked))
        (answer,) = reference_allocator.ask(cls, [asked], rounds=20, seconds=0.2)
        theirs.append(summarise(answer.nanoseconds or (1,))[0] / 1000)
    shown = ", ".join(map(str, sizes))
    for what, values, unit in (
        ("ours, choosing half of them", ours, "us"),
        ("the reference allocator, choosing half of them", theirs, "us"),
        ("our tables, built once for each kind of machine", [1e3 * one for one in built], "ms"),
    ):
        yield Row(
            table=_GROWTH,
            name=f"{what}: {shown} GPUs",
            ours=fit_exponent(sizes, values),
            unit="",
            note=", ".join(f"{value:,.3g}" for value in values) + f" {unit}",
        )


def _measure_machine(name: str, gpus: int, *, quick: bool) -> Iterator[Row]:
    cls = machine_class(load_machine(name))
    begun = time.perf_counter()
    tables = Tables(cls)
    chooser = Chooser(tables, TRAINING)
    built = time.perf_counter() - begun
    yield Row(
        table=_SPEED,
        name=f"{name}, {gpus} GPUs: tables built, once",
        ours=built,
        unit="s",
    )
    yield from _compare(name, chooser, quick=quick)


def _compare(name: str, chooser: Chooser, *, quick: bool) -> Iterator[Row]:
    """Ask both the same, size by size."""
    tables = chooser.tables
    gpus = tables.count
    chance = random.Random(name)
    medians: list[float] = []
    counted = better = worse = padded = 0
    for size in range(1, gpus + 1) if gpus < LARGE else _AFFORDABLE:
        asked = _requests(chance, gpus, size)
        theirs = reference_allocator.ask(
            tables.cls, asked, rounds=20, seconds=0.05 if quick else 0.5
        )
        ours_us = [_time_choice(chooser, request) for request in asked]
        theirs_us = [summarise(answer.nanoseconds or (0,))[0] / 1000 for answer in theirs]
        for request, answer in zip(asked, theirs, strict=True):
            ours = chooser.choose(_as_request(chooser, request))
            assert size_of(ours.members) == size
            counted += 1
            if answer.crash or len(answer.gpus or ()) != size:
                padded += 1
                continue
            other = tables.quality[gpuset(answer.gpus or ())]
            better += ours.bus_bandwidth_gbs > other
            worse += ours.bus_bandwidth_gbs < other
        median, spread = summarise(ours_us)
        medians.append(median)
        yield Row(
            table=_SPEED,
            name=f"{name}, {gpus} GPUs, k = {size}",
            ours=median,
            other=summarise(theirs_us)[0],
            unit="us",
            spread=spread,
            note=f"slowest: ours {max(ours_us):,.0f}, reference {max(theirs_us):,.0f} us",
        )
    yield Row(
        table=_SPEED,
        name=f"{name}, {gpus} GPUs: the slowest size",
        ours=max(medians),
        unit="us",
    )
    yield Row(
        table=_QUALITY,
        name=f"{name}: share of requests with a slower set than the reference's",
        ours=worse / counted,
        unit="",
        note=f"{better} of {counted} faster; reference fell or gave too few {padded} times",
    )


LARGE: Final = 16
"""From so many GPUs on the reference takes seconds to a minute a call for most sizes."""

_AFFORDABLE: Final = (1, 4, 8, 12, 16)
"""Sizes out of 16 that cost the reference seconds at most; the others up to a minute a call."""


def _requests(chance: random.Random, gpus: int, size: int) -> list[Asked]:
    """Return all GPUs free, and random free sets; fewer where a call takes seconds."""
    several = 1 if gpus >= LARGE else 19
    free = [chance.sample(range(gpus), chance.randint(size, gpus)) for _ in range(several)]
    return [Asked(tuple(sorted(one)), size) for one in (range(gpus), *free)]


def _as_request(chooser: Chooser, asked: Asked) -> Request:
    return Request(
        free=gpuset(asked.available),
        count=asked.size,
        must=EMPTY,
        allowed=chooser.tables.everything,
        min_link=None,
    )


def _time_choice(chooser: Chooser, request: Asked) -> float:
    """Return the median microseconds of a choice that is not remembered from before."""
    asked = _as_request(chooser, request)
    rounds = []
    for _ in range(5):
        chooser.choose.cache_clear()
        begun = time.perf_counter()
        chooser.choose(asked)
        rounds.append((time.perf_counter() - begun) * 1e6)
    return summarise(rounds)[0]
