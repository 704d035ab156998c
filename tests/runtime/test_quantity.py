"""Kubernetes quantities: the API's grammar, exactly."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import QuantityError
from runtime.quantity import parse_count, parse_milli, parse_quantity

EXACT = [
    ("0", 0),
    ("4", 4),
    ("+4", 4),
    ("-4", -4),
    ("1500m", Fraction(3, 2)),
    ("100u", Fraction(1, 10_000)),
    ("1n", Fraction(1, 10**9)),
    ("0.1", Fraction(1, 10)),
    (".5", Fraction(1, 2)),
    ("5.", 5),
    ("1Ki", 1024),
    ("32Gi", 32 * 2**30),
    ("1.5Gi", 3 * 2**29),
    ("1Ei", 2**60),
    ("1k", 1000),
    ("1M", 10**6),
    ("2E", 2 * 10**18),
    ("1e3", 1000),
    ("1E3", 1000),
    ("1E-3", Fraction(1, 1000)),
    ("12e+6", 12 * 10**6),
    (" 8 ", 8),
    (8, 8),
    (0.1, Fraction(1, 10)),
    (1e21, 10**21),
]

BROKEN = [
    "", " ", "m", "-", ".", "1 Gi", "1gi", "1KI", "1K1", "0x10", "1e", "1ee3", "1Gi3", "--1",
    "1,5", "NaN", "Inf", "1e999", "1e1000", "9" * 100, "१", float("nan"), float("inf"), True,
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), EXACT)
def test_quantities_are_exact(text: str | float, value: Fraction | int) -> None:
    """Each form has one exact value."""
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_quantity_is_named(text: str | float) -> None:
    """Anything else is a QuantityError, which is a ValueError, and says what was given."""
    with pytest.raises(QuantityError, match="is not a quantity") as caught:
        parse_quantity(text)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "milli"), [("1", 1000), ("250m", 250), ("1u", 1), ("1.0005", 1001), ("-1500u", -1)]
)
def test_thousandths_are_rounded_up(text: str, milli: int) -> None:
    """A request is never taken for less than it is."""
    assert parse_milli(text) == milli


def test_counts_are_rounded_up() -> None:
    """Half a byte is a byte."""
    assert parse_count("500m") == 1
    assert parse_count("16Ki") == 16384


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", "m", "k", "Ki", "M", "Gi"]))
def test_whole_numbers_scale_by_their_suffix(number: int, suffix: str) -> None:
    """A suffix multiplies, whatever the number."""
    unit = parse_quantity(f"1{suffix}")
    assert parse_quantity(f"{number}{suffix}") == number * unit


@given(st.text("0123456789.eE+-munkKMGTPEi x१", max_size=80))
def test_any_text_is_a_fraction_or_a_named_error(text: str) -> None:
    """No text does anything else."""
    with contextlib.suppress(QuantityError):
        assert isinstance(parse_quantity(text), Fraction)
