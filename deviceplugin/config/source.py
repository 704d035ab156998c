"""Where the configuration is read from, again and again: one file, or one of a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from deviceplugin.config.loading import read_config
from deviceplugin.config.model import Config
from deviceplugin.config.options import Given
from deviceplugin.config.selection import Fallback, select
from runtime.errors import SettingsError
from runtime.sources import MOST_BYTES


class Text(msgspec.Struct, frozen=True):
    """A configuration before it is understood, and the name that its mistakes are told with."""

    origin: str = "no configuration file"
    data: bytes = b""


class TextSource(Protocol):
    """Something that holds a configuration."""

    def read(self) -> Text:
        """Return what it holds now; raises SettingsError."""


class NoFile:
    """No file at all: flags and variables alone."""

    def read(self) -> Text:
        """Return an empty text."""
        return Text()


class OneFile:
    """A file. A mounted ConfigMap changes by a link that is turned, so it is opened each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Text:
        """Return the file's content."""
        return _read(self._path)


class Folder:
    """A folder of files, of which a label of the Node chooses one.

    `label` returns what the Node asks for, "" if nothing; it raises SettingsError while the API
    server does not say.
    """

    def __init__(
        self,
        path: Path,
        label: Callable[[], str],
        *,
        default: str = "default",
        fallbacks: Collection[Fallback] = tuple(Fallback),
    ) -> None:
        self._path = path
        self._label = label
        self._default = default
        self._fallbacks = fallbacks

    def read(self) -> Text:
        """Return the content of the file that is the node's."""
        try:
            # kubelet keeps the data of a mounted ConfigMap in hidden folders beside its links.
            names = {one.name for one in self._path.iterdir() if not one.name.startswith(".")}
        except OSError as error:
            raise SettingsError([f"{self._path}: {error}"]) from error
        name = select(self._label(), names, self._default, self._fallbacks)
        return Text("no configuration") if name is None else _read(self._path / name)


def _read(path: Path) -> Text:
    try:
        with path.open("rb") as file:
            return Text(str(path), file.read(MOST_BYTES + 1))
    except OSError as error:
        raise SettingsError([f"{path}: {error}"]) from error


class ConfigReader:
    """Reads a source with the flags and variables that stand over it."""

    def __init__(
        self,
        source: TextSource | None = None,
        env: Mapping[str, str] | None = None,
        flags: Sequence[Given] = (),
    ) -> None:
        self._source = source or NoFile()
        self._env = dict(env or {})
        self._flags = tuple(flags)
        self._last: Text | None = None

    def load(self) -> Config:
        """Read and check; raises SettingsError with every mistake."""
        text = self._source.read()
        self._last = text
        return read_config(text.data, text.origin, self._env, self._flags)

    def load_if_changed(self) -> Config | None:
        """Read again; None if the text is what it was. Raises SettingsError as `load` does."""
        text = self._source.read()
        if text == self._last:
            return None
        self._last = text
        return read_config(text.data, text.origin, self._env, self._flags)
