"""One watch, two who are told."""

from __future__ import annotations

from scheduler.kube.fanout import Fanout


class Ear:
    """Notes what it is told in a common book."""

    def __init__(self, name: str, book: list[tuple[str, str, object]]) -> None:
        self._name = name
        self._book = book

    def listed(self, objects: tuple[int, ...]) -> None:
        """Hear a list."""
        self._book.append((self._name, "listed", objects))

    def changed(self, obj: int) -> None:
        """Hear a change."""
        self._book.append((self._name, "changed", obj))

    def deleted(self, obj: int) -> None:
        """Hear an end."""
        self._book.append((self._name, "deleted", obj))


def test_everybody_hears_everything_in_order() -> None:
    """The first one first: it may be what the second builds on."""
    book: list[tuple[str, str, object]] = []
    told = Fanout(Ear("a", book), Ear("b", book))
    told.listed((1, 2))
    told.changed(3)
    told.deleted(4)
    assert book == [
        ("a", "listed", (1, 2)),
        ("b", "listed", (1, 2)),
        ("a", "changed", 3),
        ("b", "changed", 3),
        ("a", "deleted", 4),
        ("b", "deleted", 4),
    ]
