"""Laws of the annotations: what is written is read back; nothing read does worse than WireError."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.strategies import node_topologies, uuid_sets
from topology import wire
from topology.errors import WireError
from topology.model import NodeTopology
from topology.wire import Assignment, NodeState

_LAWS = settings(deadline=None, max_examples=60)
_DECODERS = [wire.decode_topology, wire.decode_state, wire.decode_assignment]
_TEXTS = st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _read(decode: Callable[[str | bytes], object], text: str | bytes) -> None:
    with suppress(WireError):
        decode(text)


@_LAWS
@given(topology=node_topologies())
def test_a_topology_is_read_back(topology: NodeTopology) -> None:
    """decode(encode(x)) is x for every topology."""
    assert wire.decode_topology(wire.encode_topology(topology)) == topology


@_LAWS
@given(
    state=st.builds(
        NodeState,
        generation=st.integers(0, 2**62),
        resources=st.lists(st.text(max_size=9), max_size=3).map(tuple),
        unhealthy=_TEXTS,
        allocations=uuid_sets(),
        withheld=_TEXTS,
    )
)
def test_a_state_is_read_back(state: NodeState) -> None:
    """decode(encode(x)) is x for every state."""
    assert wire.decode_state(wire.encode_state(state)) == state


@_LAWS
@given(
    assignment=st.builds(
        Assignment,
        containers=uuid_sets(),
        scores=st.dictionaries(
            st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False), max_size=3
        ),
        trace=st.text(max_size=60),
    )
)
def test_an_assignment_is_read_back(assignment: Assignment) -> None:
    """decode(encode(x)) is x for every assignment."""
    assert wire.decode_assignment(wire.encode_assignment(assignment)) == assignment


@pytest.mark.parametrize("decode", _DECODERS)
@_LAWS
@given(raw=st.binary(max_size=60))
def test_no_bytes_break_a_reader(decode: Callable[[str | bytes], object], raw: bytes) -> None:
    """Any bytes are read or refused with WireError."""
    _read(decode, raw)


@pytest.mark.parametrize("decode", _DECODERS)
@_LAWS
@given(text=st.text(alphabet=st.characters(), max_size=60))
def test_no_text_breaks_a_reader(decode: Callable[[str | bytes], object], text: str) -> None:
    """Any text, lone surrogates too, is read or refused with WireError."""
    _read(decode, text)


@_LAWS
@given(topology=node_topologies(), data=st.data())
def test_no_damaged_topology_breaks_the_reader(topology: NodeTopology, data: st.DataObject) -> None:
    """A topology that is cut short or has one field replaced is read or refused with WireError."""
    text = wire.encode_topology(topology)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(WireError):
        wire.decode_topology(text[:cut])
    tree = json.loads(text)
    key = data.draw(st.sampled_from(sorted(tree)))
    tree[key] = data.draw(_JSON)
    _read(wire.decode_topology, json.dumps(tree))
