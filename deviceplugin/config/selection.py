"""Which of several configurations is a node's. Pure.

A ConfigMap with a key for each kind of node is mounted as a folder; a label of the Node names the
key. What happens without the label is said by fallbacks, tried in order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from runtime.errors import SettingsError

LABELS: Final = ("gputopo.dev/device-plugin.config", "nvidia.com/device-plugin.config")
"""The first of them that a Node has counts; the second is the reference's."""


class Fallback(StrEnum):
    """What to take when no label names a configuration."""

    NAMED = "named"  # the one with the default's name
    SINGLE = "single"  # the only one there is
    EMPTY = "empty"  # none: flags and variables alone


def label_of(labels: Mapping[str, str]) -> str:
    """Return the name that a Node's labels ask for, "" if they ask for none."""
    return next((labels[label] for label in LABELS if labels.get(label)), "")


def select(
    wanted: str, names: Collection[str], default: str, fallbacks: Collection[Fallback]
) -> str | None:
    """Return the name of the configuration, None for the empty one.

    Raises SettingsError for a label that names none, and when no fallback applies.
    """
    there = ", ".join(sorted(names)) or "none"
    if wanted:
        if wanted in names:
            return wanted
        raise SettingsError([f"the Node's label asks for {wanted!r}; there are: {there}"])
    for fallback in fallbacks:
        if fallback is Fallback.NAMED and default in names:
            return default
        if fallback is Fallback.SINGLE and len(names) == 1:
            return next(iter(names))
        if fallback is Fallback.EMPTY:
            return None
    tried = ", ".join(fallbacks) or "none"
    problem = (
        f"no label of the Node names a configuration, nor does a fallback ({tried}); "
        f"there are: {there}"
    )
    raise SettingsError([problem])
