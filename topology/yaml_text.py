"""Reading YAML that anybody may have written: whatever it is, it ends as a value or a YamlError."""

from __future__ import annotations

from typing import Any, Final

import yaml

MAX_DEPTH: Final = 40
"""libyaml builds nested values by recursion without a limit and would crash the process."""
MAX_BYTES: Final = 4 << 20

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """The text is no YAML that we take. `line` counts from 1, None if it is not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem = problem
        self.line = line


def load_yaml(text: str | bytes) -> Any:
    """Return the one document of a text as plain values; None for an empty one."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"longer than {MAX_BYTES >> 20} MiB")
    try:
        _check_depth(text)
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - one of PyYAML's safe loaders
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise YamlError(f"not YAML: {problem}", mark.line + 1 if mark else None) from None
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise YamlError(f"not YAML: {first}") from None


def _check_depth(text: str | bytes) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                raise YamlError(
                    f"nested more than {MAX_DEPTH} deep", mark.line + 1 if mark else None
                )
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
