"""The table of conformance: complete, and true in what it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from deviceplugin.config.options import OPTIONS

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = ROOT / "docs" / "conformance.md"
SENTENCES: Final = 66

_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> dict[int, tuple[str, str]]:
    """Return the sentences by number, and what is said to show each."""
    return {int(n): (said, shown) for n, said, shown in _ROW.findall(TABLE.read_text())}


def functions(path: Path) -> set[str]:
    """Return the test functions of a file."""
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_sentence_has_a_row() -> None:
    """Numbers run from 1 to 66, and each row names a test or says in words why there is none."""
    assert list(rows()) == list(range(1, SENTENCES + 1))
    for number, (_, shown) in rows().items():
        assert _TEST.search(shown) or shown.startswith("not "), number


def test_every_test_that_is_named_exists() -> None:
    """A test that is renamed or removed takes its row with it."""
    named = [match for _, shown in rows().values() for match in _TEST.findall(shown)]
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file() or name not in functions(ROOT / "tests" / file)
    ]
    assert missing == []


def test_every_option_of_the_reference_is_explained() -> None:
    """The page of the device plugin names each flag, variable and key."""
    page = (ROOT / "docs" / "device-plugin.md").read_text()
    for option in OPTIONS:
        for name in (*option.flags, *option.variables, ".".join(option.key)):
            assert f"`{name}`" in page, name
