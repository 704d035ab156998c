"""Scores in thousandths of a GPU: what a placement wins or costs, on one scale for all plugins.

Plugins that share the scale can be weighed against each other by their weights alone: 1 to 1 a
thousandth of a GPU counts the same in each.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray, IntArray

SPAN: Final = 4000.0
"""Four GPUs won or lost are the ends of the scale; beyond them nothing is told apart."""


def scale_milli(raw: FloatArray) -> FloatArray:
    """Map thousandths of a GPU to 0 to 1; nothing won or lost is a half."""
    scaled: FloatArray = np.clip(0.5 + raw / (2 * SPAN), 0.0, 1.0)
    return scaled


def free_parts(free: IntArray, capacity: IntArray) -> FloatArray:
    """Return the part of each node's capacity that is free, 0 where it has none."""
    answer: FloatArray = free / np.maximum(capacity, 1)
    return answer
