"""Which of several configurations is a node's."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.config.selection import Fallback, label_of, select
from deviceplugin.config.source import ConfigReader, Folder
from runtime.errors import SettingsError

ALL = tuple(Fallback)
NAMED, SINGLE, EMPTY = ALL


@pytest.mark.parametrize(
    ("wanted", "names", "fallbacks", "expected"),
    [
        ("a", {"a", "default"}, ALL, "a"),
        ("", {"a", "default"}, ALL, "default"),
        ("", {"a"}, ALL, "a"),
        ("", {"a", "b"}, ALL, None),
        ("", set(), ALL, None),
        ("", {"a", "default"}, (EMPTY, NAMED), None),
        ("", {"default"}, (SINGLE,), "default"),
    ],
)
def test_fallbacks_are_tried_in_order(
    wanted: str, names: set[str], fallbacks: tuple[Fallback, ...], expected: str | None
) -> None:
    """The label's name first; without one, the default's name, the only one, none at all."""
    assert select(wanted, names, "default", fallbacks) == expected


@pytest.mark.parametrize(
    ("wanted", "names", "fallbacks", "said"),
    [
        ("x", {"b", "a"}, ALL, "'x'; there are: a, b"),
        ("", {"a", "b"}, (NAMED, SINGLE), "nor does a fallback (named, single)"),
        ("", set(), (), "nor does a fallback (none); there are: none"),
    ],
)
def test_a_choice_that_leads_nowhere_is_told(
    wanted: str, names: set[str], fallbacks: tuple[Fallback, ...], said: str
) -> None:
    """A label that names nothing is no reason to take something else."""
    with pytest.raises(SettingsError) as caught:
        select(wanted, names, "default", fallbacks)
    assert said in str(caught.value)


def test_our_label_goes_before_the_references() -> None:
    """Whoever moves over may set both; an empty value names nothing."""
    theirs = {"nvidia.com/device-plugin.config": "theirs"}
    assert label_of(theirs) == "theirs"
    assert label_of(theirs | {"gputopo.dev/device-plugin.config": "ours"}) == "ours"
    assert label_of(theirs | {"gputopo.dev/device-plugin.config": ""}) == "theirs"
    assert label_of({}) == ""


def test_hidden_files_of_a_mounted_config_map_are_no_configurations(tmp_path: Path) -> None:
    """Kubelet keeps its own links and folders beside the keys."""
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").touch()
    (tmp_path / "only").write_text("flags: {migStrategy: mixed}")
    assert ConfigReader(Folder(tmp_path, lambda: "")).load().flags.mig_strategy == "mixed"


def test_a_folder_or_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The path stands in what is said."""
    with pytest.raises(SettingsError, match="nowhere"):
        ConfigReader(Folder(tmp_path / "nowhere", lambda: "")).load()
