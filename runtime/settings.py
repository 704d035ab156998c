"""Settings from a YAML file, the environment and the command line, all mistakes at once.

An option beats ``GPUTOPO_<NAME>``, which beats the file, which beats the model's default. Nested
keys are written with two underscores in the environment (``GPUTOPO_LOAD__URL``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from runtime.errors import SettingsError

PREFIX = "GPUTOPO_"

M = TypeVar("M", bound=BaseModel)
Key = tuple[str | int, ...]

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


def load_settings(
    model: type[M],
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
) -> M:
    """Read and check settings. Overrides that are None count as not given.

    Raises SettingsError with a line for every mistake: ``file:line: key: problem``, or
    ``GPUTOPO_PORT: problem``, or ``--port: problem``.
    """
    values: dict[str, Any] = {}
    places: dict[Key, str] = {}
    problems: list[str] = []
    if path is not None:
        values = _read_file(path, places, problems)
    for key, name, text in _from_environment(model, env):
        _put(values, key, _value_of(text))
        _claim(places, key, name)
    for field, value in overrides.items():
        if value is not None:
            values[field] = value
            _claim(places, (field,), f"--{field.replace('_', '-')}")
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        problems += [_say(fault, places, path) for fault in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError(problems)


def _read_file(path: Path, places: dict[Key, str], problems: list[str]) -> dict[str, Any]:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problems.append(f"{path}{line}: not YAML: {error.problem or error.context}")
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(f"{path}: {error}")
        return {}
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}:{root.start_mark.line + 1}: want a mapping of settings")
        return {}
    reader = _NodeReader(path, places, problems)
    built: dict[str, Any] = reader.build(root, ())
    return built


class _NodeReader:
    """Builds plain values from YAML nodes and remembers the line of each key."""

    def __init__(self, path: Path, places: dict[Key, str], problems: list[str]) -> None:
        self._path = path
        self._places = places
        self._problems = problems
        self._scalars = yaml.SafeLoader("")
        self._open: set[int] = set()

    def build(self, node: yaml.Node, key: Key) -> Any:
        """Build the value of a node that stands under `key`."""
        where = f"{self._path}:{node.start_mark.line + 1}"
        self._places.setdefault(key, where)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where, key)
        if id(node) in self._open:
            self._problems.append(f"{where}: {_dotted(key)}: the value contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*key, n)) for n, item in enumerate(node.value)]
            return self._mapping(node, key)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, where: str, key: Key) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._problems.append(f"{where}: {_dotted(key)}: {error}")
            return None

    def _mapping(self, node: yaml.Node, key: Key) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value)
            where = f"{self._path}:{name_node.start_mark.line + 1}"
            if name in built:
                self._problems.append(f"{where}: {_dotted((*key, name))}: given twice")
            self._places[*key, name] = where
            built[name] = self.build(value_node, (*key, name))
        return built


def _from_environment(
    model: type[BaseModel], env: Mapping[str, str]
) -> list[tuple[tuple[str, ...], str, str]]:
    known = model.model_fields
    found = []
    for name, text in sorted(env.items()):
        key = tuple(name[len(PREFIX) :].lower().split("__"))
        # Other names are left alone: a Service called gputopo-extender makes the kubelet set
        # GPUTOPO_EXTENDER_PORT and more, and one called gputopo sets GPUTOPO_PORT to a URL.
        if not name.startswith(PREFIX) or key[0] not in known or _SERVICE_LINK.match(text):
            continue
        found.append((key, name, text))
    return found


def _value_of(text: str) -> object:
    """Read lists and mappings, written as YAML flow; the model converts everything else."""
    if text[:1] not in {"[", "{"}:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _put(values: dict[str, Any], key: tuple[str, ...], value: object) -> None:
    *parents, last = key
    for parent in parents:
        inner = values.get(parent)
        if not isinstance(inner, dict):
            inner = values[parent] = {}
        values = inner
    values[last] = value


def _claim(places: dict[Key, str], key: Key, source: str) -> None:
    for below in [place for place in places if place[: len(key)] == key]:
        del places[below]
    places[key] = source


def _say(fault: Any, places: Mapping[Key, str], path: Path | None) -> str:
    key: Key = fault["loc"]
    problem = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        option = "-".join(str(part).replace("_", "-") for part in key)
        variable = PREFIX + "__".join(str(part) for part in key).upper()
        problem = f"is needed: --{option}, {variable}" + (f" or {path}" if path else "")
        return f"{_dotted(key)}: {problem}"
    if fault["type"] == "extra_forbidden":
        problem = "there is no such setting"
    # The nearest place that is known: a fault may sit deeper than any key of the file.
    nearest = key
    while nearest and nearest not in places:
        nearest = nearest[:-1]
    source = places.get(nearest, "settings")
    given = fault.get("input")
    shown = f", got {given!r}"[:80] if isinstance(given, str | int | float) else ""
    return f"{source}: {_dotted(key)}: {problem}{shown}" if key else f"{source}: {problem}"


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)
