"""Settings from a YAML file, the environment and the command line, all mistakes at once.

An option beats ``GPUTOPO_<NAME>``, which beats the file, which beats the model's default. Nested
keys are written with two underscores in the environment (``GPUTOPO_LOAD__URL``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel

from runtime.errors import SettingsError
from runtime.sources import Key, Sources

PREFIX = "GPUTOPO_"

M = TypeVar("M", bound=BaseModel)

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


def load_settings(
    model: type[M],
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
) -> M:
    """Read and check settings. Overrides that are None count as not given.

    A nested key is written with two underscores in them too: ``explain__port`` is
    ``--explain-port``. Raises SettingsError with a line for every mistake:
    ``file:line: key: problem``, or ``GPUTOPO_PORT: problem``, or ``--port: problem``.
    """
    sources = Sources()
    if path is not None:
        sources.read_file(path)
    for key, name, text in _from_environment(model, env):
        sources.put(key, _value_of(text), name)
    for field, value in overrides.items():
        if value is not None:
            sources.put(tuple(field.split("__")), value, _option(field))
    settings = sources.check(model, _needs(model, path))
    if settings is None or sources.problems:
        raise SettingsError(sources.problems)
    return settings


def _needs(model: type[BaseModel], path: Path | None) -> dict[Key, str]:
    return {
        (field,): f"{_option(field)}, {PREFIX}{field.upper()}" + (f" or {path}" if path else "")
        for field in model.model_fields
    }


def _option(field: str) -> str:
    return f"--{field.replace('__', '-').replace('_', '-')}"


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
    except (yaml.YAMLError, RecursionError):
        return text
