"""Imports of which only a part is wanted: what a process on every node should not carry.

`kubernetes` imports all of itself, OAuth and JSON schemas included, for whoever wants its client:
330 modules and 15 MiB, where the client with a service account needs 6. structlog imports rich,
if it is there, for tracebacks on terminals: 4 MiB.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType


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


def _hollow(name: str, locations: list[str]) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = list(locations)
    return package
