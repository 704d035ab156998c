"""Reads the configuration: flag > variable > file > default, every mistake told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from deviceplugin.config.model import VERSION, Config
from deviceplugin.config.options import Given, read_variables
from runtime.errors import SettingsError
from runtime.sources import Key, Sources


def load_config(
    path: Path | None, env: Mapping[str, str] | None = None, flags: Iterable[Given] = ()
) -> Config:
    """Read and check the configuration; raises SettingsError with a line for every mistake."""
    sources = Sources()
    if path is not None:
        sources.read_file(path)
    return check_config(sources, env or {}, flags)


def read_config(
    text: bytes, origin: str, env: Mapping[str, str] | None = None, flags: Iterable[Given] = ()
) -> Config:
    """Check a configuration's text; `origin` is what mistakes name before the line."""
    sources = Sources()
    sources.read_text(text, origin)
    return check_config(sources, env or {}, flags)


def check_config(sources: Sources, env: Mapping[str, str], flags: Iterable[Given]) -> Config:
    """Put variables and flags over what the sources have, and check the whole."""
    version = sources.values.get("version", VERSION)
    if version != VERSION:
        # Keys of another version may mean anything: no more is said of them.
        if version is None or version == "":
            sources.values["version"] = VERSION
        else:
            sources.blame(("version",), f"version {version!r} is not known, {VERSION} is")
            raise SettingsError(sources.problems)
    _drop_empty(sources.values)
    _find_strangers(sources, Config, sources.values, ())
    for option, name, text in (*read_variables(env), *flags):
        sources.put(option.key, text, name)
    _split_channels(sources)
    config = sources.check(Config)
    if config is None or sources.problems:
        raise SettingsError(sources.problems)
    return config


def _drop_empty(values: dict[str, Any]) -> None:
    """Take keys without a value as absent, as the reference does."""
    for name, value in list(values.items()):
        if value is None:
            del values[name]
        elif isinstance(value, dict):
            _drop_empty(value)


def _find_strangers(sources: Sources, model: type[BaseModel], values: Any, key: Key) -> None:
    """Refuse keys that no part has, with the nearest one that it has; below them nothing is said.

    The reference passes over them in silence, so that a slip of the pen changes a whole fleet.
    """
    if not isinstance(values, dict):
        return
    fields = {str(field.alias or name): field for name, field in model.model_fields.items()}
    for name in list(values):
        field = fields.get(name)
        if field is None:
            near = get_close_matches(name, fields, n=1)
            hint = f"; {near[0]} is meant?" if near else ""
            sources.blame((*key, name), f"there is no such key{hint}")
            del values[name]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _find_strangers(sources, field.annotation, values[name], (*key, name))


def _split_channels(sources: Sources) -> None:
    """Read the channels of a flag or variable: numbers with commas between them."""
    imex = sources.values.get("imex")
    if isinstance(imex, dict) and isinstance(imex.get("channelIDs"), str):
        words = [word.strip() for word in imex["channelIDs"].split(",") if word.strip()]
        imex["channelIDs"] = words
