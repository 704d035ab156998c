"""How a cost grows with the size of the cluster: a row from what it was at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.bench.rows import Row, fit_exponent

LARGE: Final = 50_000
"""The number of nodes that every cost is told for."""

_TABLE: Final = "Growth with the number of nodes (exponent of the best fit)"


def growth_row(what: str, sizes: Sequence[int], values: Sequence[float], unit: str) -> Row:
    """Return the fitted exponent of a cost in `unit`, and what it is or would be at LARGE nodes."""
    exponent = fit_exponent(sizes, values)
    if sizes[-1] == LARGE:
        told = f"{values[-1]:.3g} {unit} at {LARGE:,} nodes"
    else:
        # From the largest size on, not from the fit: the small ones are mostly fixed costs.
        reached = values[-1] * (LARGE / sizes[-1]) ** max(exponent, 0.0)
        told = f"would be {reached:.3g} {unit} at {LARGE:,} nodes"
    return Row(
        table=_TABLE,
        name=f"{what}, {len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,}",
        ours=exponent,
        unit="",
        note=told,
    )
