"""Plugins that the user brought: found, made and checked at start, all mistakes told at once.

A plugin is a Python class with a `name` and at least one method of `scheduler.engine.framework`'s
protocols. It comes from an installed distribution's entry point in the group `gputopo.plugins`, or
from a file, which in a cluster is mounted from a ConfigMap.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, cast

from scheduler.engine.framework import Framework, Plugin
from scheduler.errors import ExtensionError
from scheduler.settings import PluginSettings

GROUP: Final = "gputopo.plugins"

# Method -> how many arguments it is called with.
METHODS: Final[Mapping[str, int]] = {
    "pre_filter": 1,
    "filter": 2,
    "score": 2,
    "normalize": 2,
    "reserve": 3,
}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def load_plugins(settings: Sequence[PluginSettings], framework: Framework) -> Framework:
    """Return the framework with the configured plugins. Raises ExtensionError with all mistakes."""
    problems: list[str] = []
    guests: list[Plugin] = []
    taken = set(framework.names)
    for number, given in enumerate(settings, 1):
        place = f"plugin {number} ({given.entry_point or given.file})"
        try:
            made = _make(given)
        except _UnusableError as error:
            problems.append(f"{place}: {error}")
            continue
        found = list(_check(made, taken))
        problems += [f"{place}: {problem}" for problem in found]
        if not found:
            guest = cast("Plugin", made)
            taken.add(guest.name)
            guests.append(guest)
    choosers = [guest.name for guest in guests if hasattr(guest, "reserve")]
    if len(choosers) > 1:
        problems.append(f"{' and '.join(choosers)}: only one plugin may have reserve")
    if problems:
        raise ExtensionError(problems)
    return framework.extended(guests)


class _UnusableError(Exception):
    """A plugin that cannot be had."""


def _make(given: PluginSettings) -> object:
    found = _from_entry_point(given.entry_point) if given.entry_point else _from_file(given)
    if not inspect.isclass(found):
        raise _UnusableError(f"{found!r:.80} is not a class")
    try:
        made: object = found(**given.options)
    except Exception as error:
        raise _UnusableError(f"{found.__name__} cannot be made: {_describe(error)}") from error
    return made


def _from_entry_point(name: str) -> object:
    points = {point.name: point for point in entry_points(group=GROUP)}
    point = points.get(name)
    if point is None:
        there = ", ".join(sorted(points)) or "none is installed"
        raise _UnusableError(f"no such entry point in {GROUP}; {there}")
    try:
        loaded: object = point.load()
    except Exception as error:
        raise _UnusableError(f"{point.value} does not load: {_describe(error)}") from error
    return loaded


def _from_file(given: PluginSettings) -> object:
    path = Path(given.file or "")
    if not path.is_file():
        raise _UnusableError("no such file")
    spec = importlib.util.spec_from_file_location(f"gputopo_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise _UnusableError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _UnusableError(f"does not run: {_describe(error)}") from error
    classes = {
        name: one
        for name, one in vars(module).items()
        if inspect.isclass(one) and one.__module__ == module.__name__
    }
    if given.class_name:
        if given.class_name not in classes:
            there = ", ".join(classes) or "no class"
            raise _UnusableError(f"no class {given.class_name!r}; there is {there}")
        return classes[given.class_name]
    if len(classes) != 1:
        raise _UnusableError(f"name one with `class`: there are {len(classes)} classes")
    return next(iter(classes.values()))


def _check(plugin: object, taken: set[str]) -> list[str]:
    """Return what is wrong with a plugin, nothing if it can take part."""
    problems = []
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append(f"name: {name!r:.60} is not a word of a-z, 0-9 and _")
    elif name in taken:
        problems.append(f"name: there is a plugin {name!r} already")
    methods = [method for method in METHODS if hasattr(plugin, method)]
    if not set(methods) - {"normalize"}:
        wanted = ", ".join(method for method in METHODS if method != "normalize")
        problems.append(f"it has none of the methods {wanted}")
    if "normalize" in methods and "score" not in methods:
        problems.append("normalize: there is no score that it could normalise")
    for method in methods:
        try:
            inspect.signature(getattr(plugin, method)).bind(*range(METHODS[method]))
        except (TypeError, ValueError):
            problems.append(f"{method}: does not take {METHODS[method]} arguments")
    if "filter" in methods:
        reason = getattr(plugin, "reason", None)
        if not isinstance(reason, str) or not reason:
            problems.append("reason: a filter says with one constant text why it refuses")
        if not isinstance(getattr(plugin, "busy", None), bool):
            problems.append("busy: a filter says whether its refusal may pass when pods go")
    return problems


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
