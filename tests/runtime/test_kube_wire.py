"""The pure part of the transport: lines out of bytes."""

from __future__ import annotations

import pytest

from runtime.errors import UnreachableError
from runtime.kube_wire import LineSplitter, error_of, page_token


def test_lines_are_found_however_the_bytes_are_cut() -> None:
    """Any way of cutting a stream into chunks gives the same lines."""
    whole = b'{"a":1}\n\n{"b":2}\n{"c":3}\nrest'
    for size in range(1, len(whole) + 1):
        splitter = LineSplitter()
        chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
        lines = [line for chunk in chunks for line in splitter.feed(chunk)]
        assert lines == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


def test_a_line_without_an_end_is_refused() -> None:
    """A line beyond the limit is an error, not memory."""
    splitter = LineSplitter(limit=10)
    for _ in range(3):
        splitter.feed(b"abc")
    with pytest.raises(UnreachableError, match="longer than 10 bytes"):
        splitter.feed(b"abc")


def test_an_answer_whose_text_is_no_unicode_is_an_error_like_any() -> None:
    """Decoding raises an error of its own there, which nobody above expects."""
    with pytest.raises(UnreachableError, match="does not read"):
        page_token(b'{"metadata":{"continue":"\xff"}}')
    error = error_of(503, "Busy", b'{"kind":"Status","message":"\xff"}')
    assert str(error) == "503 Busy"


def test_the_next_page_is_found_in_a_page_of_great_depth() -> None:
    """One pod's fields must not end a list."""
    deep = b'{"x":' * 5_000 + b"{}" + b"}" * 5_000
    assert page_token(b'{"items":[' + deep + b'],"metadata":{"continue":"more"}}') == "more"
