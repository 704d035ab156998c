"""Linux list format of CPUs and NUMA nodes: ``0-3,8,10-11``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ITEM = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_LIMIT = 1 << 16
"""More CPUs or NUMA nodes than this are taken for a broken list, not for a machine."""


def parse_list(text: str) -> tuple[int, ...]:
    """Read a list; the empty text is the empty list. Raises ValueError naming the bad item.

    >>> parse_list("0-2,8")
    (0, 1, 2, 8)
    """
    if not text.strip():
        return ()
    numbers: set[int] = set()
    for item in text.strip().split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{item!r} is neither a number nor a range")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first or last >= _LIMIT:
            raise ValueError(f"{item!r} is not an ascending range below {_LIMIT}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_list(numbers: Iterable[int]) -> str:
    """Write numbers as the kernel does.

    >>> format_list([8, 0, 1, 2])
    '0-2,8'
    """
    parts: list[str] = []
    ordered = sorted(set(numbers))
    start = 0
    while start < len(ordered):
        stop = start
        while stop + 1 < len(ordered) and ordered[stop + 1] == ordered[stop] + 1:
            stop += 1
        first, last = ordered[start], ordered[stop]
        parts.append(str(first) if first == last else f"{first}-{last}")
        start = stop + 1
    return ",".join(parts)
