"""From the command line to the configuration that the device plugin reads and follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import typer

from deviceplugin.config.node_label import NodeLabel
from deviceplugin.config.options import read_flags
from deviceplugin.config.selection import Fallback
from deviceplugin.config.source import ConfigReader, Folder, OneFile, TextSource
from deviceplugin.settings import PluginSettings


class Choice(msgspec.Struct, frozen=True):
    """What the command line says of where the configuration is."""

    file: Path | None = None
    folder: Path | None = None
    default: str = ""
    fallbacks: str = ""


def make_reader(
    choice: Choice, settings: PluginSettings, env: Mapping[str, str], words: Sequence[str]
) -> ConfigReader:
    """Return the reader; `words` are those of the command line that are no options of ours.

    Raises typer.BadParameter for a word that is no option of the reference either, SettingsError
    with every mistake of the configuration.
    """
    given, others = read_flags(words)
    if others:
        raise typer.BadParameter(f"no such option: {others[0]}")
    reader = ConfigReader(_source(choice, settings), env, given)
    reader.load()
    return reader


def _source(choice: Choice, settings: PluginSettings) -> TextSource | None:
    if choice.file is not None and choice.folder is not None:
        raise typer.BadParameter("--config-file and --config-dir exclude each other")
    if choice.folder is None:
        return None if choice.file is None else OneFile(choice.file)
    return Folder(
        choice.folder,
        NodeLabel(settings.kubeconfig, settings.node_name, period=settings.config_label_seconds),
        default=choice.default,
        fallbacks=_fallbacks(choice.fallbacks),
    )


def _fallbacks(text: str) -> tuple[Fallback, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in tuple(Fallback):
            known = ", ".join(Fallback)
            raise typer.BadParameter(f"--config-fallbacks: {word!r} is none of {known}")
    return tuple(Fallback(word) for word in words)
