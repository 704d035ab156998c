"""Where settings come from: values of a YAML file and others put over them, each with its place.

The place is what a mistake is told with: ``file:line``, a variable's name, an option's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Key = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

MOST_BYTES = 1 << 20
"""The size of a ConfigMap; the parser needs a thousand times as much memory as its text."""
MOST_VALUES = 100_000
"""References to one value may multiply: forty short lines could make billions of values."""


class Sources:
    """Values on their way to a model, the place of each, and the mistakes found so far."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self._places: dict[Key, str] = {}
        self._origin = "settings"

    def read_file(self, path: Path) -> None:
        """Take the values of a YAML file; one that cannot be read is a mistake like any other."""
        try:
            data = path.read_bytes()
        except OSError as error:
            self.problems.append(f"{path}: {error}")
            return
        self.read_text(data, str(path))

    def read_text(self, data: bytes, origin: str) -> None:
        """Take the values of YAML text that came from `origin`."""
        self._origin = origin
        if len(data) > MOST_BYTES:
            self.problems.append(f"{origin}: longer than {MOST_BYTES >> 20} MiB")
            return
        try:
            root = yaml.compose(data.decode(), Loader=yaml.SafeLoader)
            self.values = self._build(root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            self.problems.append(f"{origin}{line}: not YAML: {error.problem or error.context}")
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            self.problems.append(f"{origin}: {error}")
        except _TooManyError:
            self.problems.append(f"{origin}: more than {MOST_VALUES} values")
        except RecursionError:
            self.problems.append(f"{origin}: nested too deep")

    def put(self, key: tuple[str, ...], value: object, place: str) -> None:
        """Set a value; whatever stood at or below the key is gone."""
        values = self.values
        *parents, last = key
        for parent in parents:
            inner = values.get(parent)
            if not isinstance(inner, dict):
                inner = values[parent] = {}
            values = inner
        values[last] = value
        for below in [known for known in self._places if known[: len(key)] == key]:
            del self._places[below]
        self._places[key] = place

    def place_of(self, key: Key) -> str:
        """Return the nearest known place: a mistake may sit deeper than any key of a file."""
        while key and key not in self._places:
            key = key[:-1]
        return self._places.get(key, self._origin)

    def blame(self, key: Key, problem: str) -> None:
        """Note a mistake at a key."""
        where = self.place_of(key)
        self.problems.append(f"{where}: {dotted(key)}: {problem}" if key else f"{where}: {problem}")

    def check(self, model: type[M], needs: Mapping[Key, str] | None = None) -> M | None:
        """Make the model of the values, or note every mistake and return None.

        `needs` says, by key, where a value that is missing could be given.
        """
        try:
            return model.model_validate(self.values)
        except ValidationError as error:
            for fault in error.errors():
                self._take(fault, needs or {})
            return None

    def _take(self, fault: Any, needs: Mapping[Key, str]) -> None:
        key: Key = fault["loc"]
        problem = str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "missing" and key in needs:
            self.problems.append(f"{dotted(key)}: is needed: {needs[key]}")
            return
        if fault["type"] == "missing":
            problem = "is needed"
        if fault["type"] == "extra_forbidden":
            problem = "there is no such setting"
        given = fault.get("input")
        shown = f", got {given!r}"[:80] if isinstance(given, str | int | float) else ""
        self.blame(key, f"{problem}{shown}")

    def _build(self, root: yaml.Node | None) -> dict[str, Any]:
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            line = root.start_mark.line + 1
            self.problems.append(f"{self._origin}:{line}: want a mapping of settings")
            return {}
        built: dict[str, Any] = _NodeReader(self._origin, self._places, self.problems).build(
            root, ()
        )
        return built


class _TooManyError(Exception):
    """There are more values than anybody would write."""


class _NodeReader:
    """Builds plain values from YAML nodes and remembers the line of each key."""

    def __init__(self, origin: str, places: dict[Key, str], problems: list[str]) -> None:
        self._origin = origin
        self._places = places
        self._problems = problems
        self._scalars = yaml.SafeLoader("")
        self._open: set[int] = set()
        self._built = 0

    def build(self, node: yaml.Node, key: Key) -> Any:
        """Build the value of a node that stands under `key`."""
        self._built += 1
        if self._built > MOST_VALUES:
            raise _TooManyError
        where = f"{self._origin}:{node.start_mark.line + 1}"
        self._places.setdefault(key, where)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where, key)
        if id(node) in self._open:
            self._problems.append(f"{where}: {dotted(key)}: the value contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*key, n)) for n, item in enumerate(node.value)]
            return self._mapping(node, key)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, where: str, key: Key) -> Any:
        if ":" in node.value and node.tag.endswith((":int", ":float")):
            # YAML 1.1 takes 1:30 for a number of base 60; Kubernetes' tools take it for text.
            return node.value
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._problems.append(f"{where}: {dotted(key)}: {error}")
            return None

    def _mapping(self, node: yaml.Node, key: Key) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value)
            where = f"{self._origin}:{name_node.start_mark.line + 1}"
            if name in built:
                self._problems.append(f"{where}: {dotted((*key, name))}: given twice")
            self._places[*key, name] = where
            built[name] = self.build(value_node, (*key, name))
        return built


def dotted(key: Key) -> str:
    """Return a key as people write it."""
    return ".".join(str(part) for part in key)
