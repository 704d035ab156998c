"""From the labels of a series to the node that it speaks of.

Exporters name their node in many ways: by its name, its host name, an address, with or without a
port. All of them are known from the Node object; a text that fits two nodes fits none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec


class Directory(msgspec.Struct, frozen=True):
    """The nodes in order, and every text that means one of them.

    `labels` are the label names to look at; the first whose value means a node decides.
    """

    names: tuple[str, ...]
    places: dict[str, int]
    texts: dict[str, str]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, addresses: Mapping[str, tuple[str, ...]], labels: tuple[str, ...]) -> Self:
        """Build it from each node's addresses (host names among them)."""
        names = tuple(sorted(addresses))
        found: dict[str, str | None] = {}
        for name in names:
            short = name.partition(".")[0]
            for text in {text.lower() for text in (short, *addresses[name])}:
                found[text] = name if found.get(text, name) == name else None
        # A node's own name beats what others call themselves.
        found.update({name: name for name in names})
        return cls(
            names=names,
            places={name: place for place, name in enumerate(names)},
            texts={text: name for text, name in found.items() if name is not None},
            labels=labels,
        )

    def find(self, labels: Mapping[str, str]) -> str | None:
        """Return the node of a series, None if no label tells."""
        for label in self.labels:
            text = labels.get(label)
            if text:
                node = self.texts.get(text) or self.texts.get(host_of(text))
                if node is not None:
                    return node
        return None


def host_of(text: str) -> str:
    """Return the host of ``host:port``, ``[v6]:port`` or a bare host, in lower case.

    >>> host_of("N1:9100"), host_of("[fd00::1]:9100"), host_of("fd00::1"), host_of("10.0.0.1")
    ('n1', 'fd00::1', 'fd00::1', '10.0.0.1')
    """
    text = text.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, port = text.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else text
