"""Sets of GPUs as bit masks: bit i is the GPU at position i of its NodeTopology."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NewType

from topology.errors import SelectionError

GpuSet = NewType("GpuSet", int)
"""A non-negative integer whose set bits are positions in `NodeTopology.gpus`."""

EMPTY = GpuSet(0)


def gpuset(positions: Iterable[int]) -> GpuSet:
    """Make a set of positions.

    >>> gpuset([0, 3])
    9
    """
    mask = 0
    for position in positions:
        mask |= 1 << position
    return GpuSet(mask)


def full_set(count: int) -> GpuSet:
    """Return the set of the first `count` positions."""
    return GpuSet((1 << count) - 1)


def positions(members: GpuSet) -> Iterator[int]:
    """Yield the positions of a set in ascending order."""
    mask = int(members)
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def size(members: GpuSet) -> int:
    """Return how many GPUs the set has."""
    return int(members).bit_count()


def format_positions(members: GpuSet) -> str:
    """Return a set as people write it.

    >>> format_positions(gpuset([4, 0, 2]))
    '0,2,4'
    """
    return ",".join(map(str, positions(members)))


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """Read a comma-separated list of non-negative integers; blanks are allowed around them.

    Raises SelectionError, naming `what` and the word that is no number or stands twice.

    >>> parse_numbers("0, 3,5", "--available")
    (0, 3, 5)
    """
    numbers: list[int] = []
    for word in text.split(","):
        stripped = word.strip()
        if not (stripped.isascii() and stripped.isdecimal()):
            raise SelectionError(f"{what}: {stripped!r} is not a GPU index")
        number = int(stripped)
        if number in numbers:
            raise SelectionError(f"{what}: GPU {number} is named twice")
        numbers.append(number)
    return tuple(numbers)
