"""The table case x cluster: what came of each case on each kind of cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """What came of a case on one kind of cluster; `reason` says why it was skipped."""

    case: str
    kind: str
    word: str
    reason: str = ""


# The worst of what a case's setup, call and teardown said stands.
_RANK = ("", "passed", "skipped", "error", "failed")


def draw(outcomes: Iterable[Outcome], kinds: Sequence[str]) -> list[str]:
    """Return the table's lines, one a case in the order of their coming.

    >>> told = [Outcome("a", "x", "passed"), Outcome("a", "y", "skipped", "Skipped: no y")]
    >>> for line in draw([*told, Outcome("b", "x", "failed")], ("x", "y")):
    ...     print(line)
    case  x       y
    a     passed  skipped  y: no y
    b     failed  -
    """
    words: dict[str, dict[str, str]] = {}
    reasons: dict[str, list[str]] = {}
    for one in outcomes:
        row = words.setdefault(one.case, {})
        row[one.kind] = max(row.get(one.kind, ""), one.word, key=_RANK.index)
        if one.reason:
            why = one.reason.removeprefix("Skipped: ")
            reasons.setdefault(one.case, []).append(f"{one.kind}: {why}")
    rows = [("case", *kinds, "")]
    for case, row in words.items():
        cells = [row.get(kind, "-") for kind in kinds]
        rows.append((case, *cells, "; ".join(reasons.get(case, []))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(kinds) + 1)]
    return [
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]
