"""One watch, several who are told: in their order, one after the other."""

from __future__ import annotations

from typing import Generic, TypeVar

from runtime.reflection import Sink

T = TypeVar("T")


class Fanout(Generic[T]):
    """A sink that hands everything on."""

    def __init__(self, *sinks: Sink[T]) -> None:
        self._sinks = sinks

    def listed(self, objects: tuple[T, ...]) -> None:
        """Take a complete list."""
        for sink in self._sinks:
            sink.listed(objects)

    def changed(self, obj: T) -> None:
        """Take a new or changed object."""
        for sink in self._sinks:
            sink.changed(obj)

    def deleted(self, obj: T) -> None:
        """Take an object's end."""
        for sink in self._sinks:
            sink.deleted(obj)
