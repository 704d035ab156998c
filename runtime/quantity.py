"""Kubernetes quantities, exactly: ``1500m``, ``32Gi``, ``4``, ``1e3``, ``0.5``.

The grammar is the API's: a sign, digits with at most one point, then a binary suffix
(Ki, Mi, Gi, Ti, Pi, Ei), a decimal one (n, u, m, none, k, M, G, T, P, E), or an exponent.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

from runtime.errors import QuantityError

_FORM = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<part>\d*))?"
    r"(?:[eE](?P<exponent>[+-]?\d{1,3})|(?P<suffix>[KMGTPE]i|[numkMGTPE]))?",
    re.ASCII,
)
_SUFFIX = {
    **{f"{letter}i": 1024 ** (n + 1) for n, letter in enumerate("KMGTPE")},
    **{letter: 1000 ** (n + 1) for n, letter in enumerate("kMGTPE")},
    "m": Fraction(1, 10**3),
    "u": Fraction(1, 10**6),
    "n": Fraction(1, 10**9),
}
_LENGTH = 64
"""Characters; the server's own quantities stay below 30."""

_EXPONENT = 100
"""A larger exponent is a mistake or an attack: numbers of that size are built digit by digit."""


def parse_quantity(value: str | float) -> Fraction:
    """Read a quantity as an exact fraction. Raises QuantityError naming what was given.

    >>> parse_quantity("1500m"), parse_quantity("32Gi") == 32 * 2**30, parse_quantity(4)
    (Fraction(3, 2), True, Fraction(4, 1))
    """
    if isinstance(value, bool):
        raise QuantityError(value, "a truth value")
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise QuantityError(value, "not a finite number")
        # By its shortest text: 0.1 means a tenth, not its binary neighbour.
        return _read(repr(value))
    return _read(value)


# Pods ask for few different amounts, each of which is looked at five times on its way to a node.
@lru_cache(1024)
def _read(value: str) -> Fraction:
    text = value.strip()
    if len(text) > _LENGTH:
        raise QuantityError(f"{text[:16]}...", f"longer than {_LENGTH} characters")
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuantityError(value, "want digits and a suffix such as m, Ki, Gi, k, M or e3")
    whole, part = match["whole"], match["part"] or ""
    if not whole and not part:
        raise QuantityError(value, "it has no digits")
    number = Fraction(int(whole + part), 10 ** len(part))
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > _EXPONENT:
        raise QuantityError(value, f"the exponent is beyond {_EXPONENT}")
    scale = Fraction(_SUFFIX[match["suffix"]]) if match["suffix"] else Fraction(10) ** exponent
    return -number * scale if match["sign"] == "-" else number * scale


def parse_milli(value: str | float) -> int:
    """Read a quantity in thousandths, rounded up as the scheduler does.

    >>> parse_milli("1.5"), parse_milli("100u")
    (1500, 1)
    """
    return math.ceil(parse_quantity(value) * 1000)


def parse_count(value: str | float) -> int:
    """Read a quantity in whole units (bytes, GPUs), rounded up as the scheduler does.

    >>> parse_count("1Ki"), parse_count("8")
    (1024, 8)
    """
    return math.ceil(parse_quantity(value))
