"""Settings: who wins, and that every mistake is told at once with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from runtime.errors import SettingsError
from runtime.settings import load_settings


class Load(BaseModel):
    """A nested part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    every: float = Field(default=10.0, gt=0)


class Example(BaseModel):
    """Settings as a daemon has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_name: str
    port: int = Field(default=8080, ge=0, le=65535)
    debug: bool = False
    paths: tuple[Path, ...] = ()
    load: Load = Load()


def write(tmp_path: Path, text: str) -> Path:
    """Write a settings file."""
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path | None, env: dict[str, str], **overrides: object) -> tuple[str, ...]:
    """Load settings that are wrong and return what is said."""
    with pytest.raises(SettingsError) as caught:
        load_settings(Example, path, env, overrides)
    return caught.value.problems


def test_an_option_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    """The nearer to the command line, the stronger."""
    path = write(tmp_path, "node_name: file\nport: 1\ndebug: true\n")
    env = {"GPUTOPO_NODE_NAME": "env", "GPUTOPO_PORT": "2"}
    settings = load_settings(Example, path, env, {"node_name": "option", "port": None})
    assert (settings.node_name, settings.port, settings.debug) == ("option", 2, True)
    assert settings.load.every == 10.0


def test_nested_and_listed_values_come_from_the_environment() -> None:
    """Two underscores descend, brackets make a list."""
    env = {
        "GPUTOPO_NODE_NAME": "n",
        "GPUTOPO_LOAD__URL": "http://x",
        "GPUTOPO_PATHS": "[/a, /b]",
    }
    settings = load_settings(Example, None, env, {})
    assert settings.load.url == "http://x"
    assert settings.paths == (Path("/a"), Path("/b"))


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    """A file of comments changes nothing."""
    settings = load_settings(Example, write(tmp_path, "# none\n"), {}, {"node_name": "n"})
    assert settings.port == 8080


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    """Four mistakes in a file are four lines, each with its line number and key."""
    path = write(
        tmp_path,
        "port: 99999\ndebug: perhaps\npaths:\n  - /a\n  - 5\nload:\n  every: 0\n  speed: 3\n",
    )
    told = problems_of(path, {})
    assert told[0] == "node_name: is needed: --node-name, GPUTOPO_NODE_NAME or " + str(path)
    assert any(line.startswith(f"{path}:1: port:") and "99999" in line for line in told)
    assert any(line.startswith(f"{path}:2: debug:") and "perhaps" in line for line in told)
    assert any(line.startswith(f"{path}:5: paths.1:") for line in told)
    assert any(line.startswith(f"{path}:7: load.every:") for line in told)
    assert f"{path}:8: load.speed: there is no such setting, got 3" in told
    assert len(told) == 6


def test_a_mistake_in_the_environment_or_an_option_names_it(tmp_path: Path) -> None:
    """The place is the variable's or the option's name, also where the file has the key too."""
    path = write(tmp_path, "port: 1\nload: {every: 5}\n")
    told = problems_of(
        path, {"GPUTOPO_PORT": "many", "GPUTOPO_LOAD__EVERY": "-1"}, node_name="n", debug="maybe"
    )
    assert any(line.startswith("GPUTOPO_PORT: port:") and "'many'" in line for line in told)
    assert any(line.startswith("GPUTOPO_LOAD__EVERY: load.every:") for line in told)
    assert any(line.startswith("--debug: debug:") for line in told)


def test_a_key_given_twice_is_a_mistake(tmp_path: Path) -> None:
    """The second of two equal keys is named by its line."""
    told = problems_of(write(tmp_path, "node_name: a\nnode_name: b\n"), {})
    assert told[0].endswith(":2: node_name: given twice")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1\nb: 2\n", ":2: not YAML"),
        ("- 1\n", ":1: want a mapping"),
        ("node_name: !!python/object:os.system x\n", ":1: node_name"),
        ("node_name: &a\n  x: *a\n", ":1: node_name.x: the value contains itself"),
    ],
)
def test_a_file_that_is_no_settings_is_told_with_its_line(
    tmp_path: Path, text: str, place: str
) -> None:
    """Broken YAML, other forms and forbidden tags have a line too."""
    assert place in "\n".join(problems_of(write(tmp_path, text), {}))


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be read is a mistake like any other."""
    assert "missing.yaml" in problems_of(tmp_path / "missing.yaml", {})[0]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml" in problems_of(binary, {})[0]


def test_what_the_kubelet_puts_into_the_environment_is_no_setting() -> None:
    """Service links of a Service called gputopo, or gputopo-x, are left alone."""
    env = {"GPUTOPO_PORT": "tcp://10.0.0.1:443", "GPUTOPO_EXTENDER_SERVICE_HOST": "10.0.0.1"}
    assert load_settings(Example, None, env, {"node_name": "n"}).port == 8080
