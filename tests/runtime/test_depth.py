"""JSON that is nested without need is read without what lies too deep."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.depth import cut_depth

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\{}[]:,')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


def prune(value: Any, depth: int) -> Any:
    """Put null for what is nested deeper, the plain way."""
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return None
    if isinstance(value, list):
        return [prune(inner, depth - 1) for inner in value]
    return {key: prune(inner, depth - 1) for key, inner in value.items()}


@given(VALUES, st.integers(0, 4), st.booleans())
def test_what_lies_deeper_is_null_and_the_rest_stays(value: Any, depth: int, raw: bool) -> None:
    """Whatever brackets, quotes and backslashes stand in texts."""
    body = json.dumps(value, ensure_ascii=raw).encode()
    assert json.loads(cut_depth(body, depth)) == prune(value, depth)
