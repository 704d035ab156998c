"""Follows the configuration while the plugin runs. Work of one thread."""

from __future__ import annotations

import queue
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from deviceplugin.config.model import Config
from deviceplugin.config.source import ConfigReader
from deviceplugin.outcomes import FAILED, OK
from runtime.errors import SettingsError

_log = structlog.get_logger("deviceplugin.config")


class ConfigWatch:
    """Calls `on_config` with each new configuration, until `stop`.

    The content is looked at every `period` seconds, and at once after `reload`. One with mistakes
    is told once and changes nothing. `reloads` counts both by their result. `on_look` is called at
    each look: other things on disk may have changed as well.
    """

    def __init__(
        self,
        reader: ConfigReader,
        on_config: Callable[[Config], None],
        reloads: Counter,
        *,
        period: float = 1.0,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = reader
        self._on_config = on_config
        self._reloads = reloads
        self._period = period
        self._on_look = on_look
        # put() may be called inside a signal handler.
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._told: tuple[str, ...] = ()
        self.problem = ""

    def reload(self) -> None:
        """Ask for a look, changed or not; works in signal handlers."""
        self._asked.put(True)

    def stop(self) -> None:
        """Make `run` end."""
        self._asked.put(False)

    def run(self) -> None:
        """Follow until `stop`."""
        while True:
            try:
                asked = self._asked.get(timeout=self._period)
            except queue.Empty:
                self._look(forced=False)
                continue
            if not asked:
                return
            self._look(forced=True)

    def _look(self, *, forced: bool) -> None:
        try:
            config = self._reader.load() if forced else self._reader.load_if_changed()
        except SettingsError as error:
            self._complain(error, forced=forced)
        else:
            if config is not None:
                self._told = ()
                self.problem = ""
                self._reloads.labels(OK).inc()
                _log.info("configuration read", asked=forced)
                self._on_config(config)
        self._on_look()

    def _complain(self, error: SettingsError, *, forced: bool) -> None:
        if error.problems == self._told and not forced:
            return
        self._told = error.problems
        self.problem = str(error)
        self._reloads.labels(FAILED).inc()
        for line in error.problems:
            _log.error("configuration is not taken, the one before stays", problem=line)
