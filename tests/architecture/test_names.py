"""The installed shape of the project."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import metadata, packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = (
    "topology",
    "runtime",
    "mock_nvml",
    "deviceplugin",
    "scheduler",
    "embedded",
    "traces",
    "cli",
)


def test_each_top_level_name_is_ours_alone() -> None:
    """No other distribution installs a package of one of our names (docs/adr/0004-names.md)."""
    owners = packages_distributions()
    assert {name: {"gputopo"} for name in OURS} == {
        name: set(owners.get(name, ["gputopo"])) for name in OURS
    }


def test_the_wheel_refuses_to_be_uploaded() -> None:
    """The classifier that package indexes refuse is set."""
    assert "Private :: Do Not Upload" in (metadata("gputopo").get_all("Classifier") or [])


def test_nothing_is_left_to_do_in_the_code() -> None:
    """What is unfinished is an issue, never a mark in a source file."""
    mark = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
    sources = [path for name in (*OURS, "proto", "tests") for path in (ROOT / name).rglob("*.py")]
    assert sources
    assert [path for path in sources if mark.search(path.read_text())] == []


def test_every_folder_of_the_design_is_there() -> None:
    """The folders that the user fixed, and ours, exist and hold something."""
    for name in (*OURS, "proto", "daemonset", "tests", "docs"):
        assert any((ROOT / name).iterdir())


def test_layers_hold() -> None:
    """Dependencies point one way, and the pure packages stay pure."""
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_locks_are_hashed_and_name_no_index() -> None:
    """Every pin of both locks has a hash, and no line names an address."""
    for lock in (ROOT / "locks").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        pins = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert pins
        assert all("--hash=sha256:" in pin for pin in pins)
