"""The curl examples of the pages give exactly what stands below them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.explained import Explained, explained

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/reference/api.md")

CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
EXAMPLE = re.compile(r"^\$ curl -s localhost:8887(\S+)\n(.*?)(?=^\$|\Z)", re.DOTALL | re.MULTILINE)


def examples() -> list[tuple[str, str, str]]:
    """Return page, path and answer of each example."""
    return [
        (page, path, answer)
        for page in PAGES
        for block in CONSOLE.findall((ROOT / page).read_text())
        for path, answer in EXAMPLE.findall(block)
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explained]:
    """Run an extender for all of this file."""
    with explained(tmp_path_factory.mktemp("explained")) as found:
        yield found


@pytest.mark.parametrize(("page", "path", "answer"), examples())
def test_an_example_gives_what_it_shows(
    served: Explained, page: str, path: str, answer: str
) -> None:
    """Value by value, on the cluster of these tests."""
    assert served.ask(path) == json.loads(answer)


def test_each_page_has_both_views() -> None:
    """Scores and strategies of a pod that is bound."""
    for page in PAGES:
        ends = {
            path.partition("?")[0].rpartition("/")[2] for at, path, _ in examples() if at == page
        }
        assert {"scores", "strategies"} <= ends
