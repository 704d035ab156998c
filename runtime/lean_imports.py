"""Imports of which only a part is wanted: what a process on every node should not carry.

`kubernetes` imports all of itself, OAuth and JSON schemas included, for whoever wants its client:
330 modules and 15 MiB, where the client with a service account needs 6. Its reader of kubeconfigs
imports oauthlib and requests for one way of several to log in: 5 MiB. structlog imports rich,
if it is there, for tracebacks on terminals, and greenlet: 4 MiB and 1.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def without_init(*packages: str) -> Iterator[None]:
    """Import modules of these packages without running the packages' own ``__init__``.

    Name a package after its parent. Afterwards the packages are as if they had never been imported,
    their modules stay: a later import of the package itself runs it, over the same modules. One
    that was imported before is used as it is, and so is one that cannot be found.
    """
    made: list[str] = []
    try:
        for name in packages:
            if name in sys.modules:
                continue
            spec = importlib.util.find_spec(name)
            if spec is None or spec.submodule_search_locations is None:
                continue
            sys.modules[name] = _hollow(name, spec.submodule_search_locations)
            made.append(name)
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let what is imported meanwhile find that these modules are not installed.

    A module that has been imported before stays.
    """
    hidden = [name for name in names if name not in sys.modules]
    try:
        for name in hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # Python's own sign for absence
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Let what is imported meanwhile import these modules not before it uses them.

    Name a module after its packages. What is taken out of one by ``from`` may only be called. A
    module that has been imported before is used as it is.
    """
    made = [name for name in names if name not in sys.modules]
    try:
        for name in made:
            sys.modules[name] = _PutOff(name)
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


class _PutOff(ModuleType):
    """Stands for a module, which the first use imports."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # the import machinery asks, and is content without
        if sys.modules.get(self.__name__) is self:
            return partial(_call, self.__name__, name)
        return _real(self.__name__, name)


def _call(module: str, name: str, *args: object, **kwargs: object) -> object:
    return _real(module, name)(*args, **kwargs)


def _real(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    # A part of a package is its attribute only once somebody has imported it.
    if hasattr(found, name):
        return getattr(found, name)
    return importlib.import_module(f"{module}.{name}")


def _hollow(name: str, locations: list[str]) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = list(locations)
    return package
