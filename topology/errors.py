"""What can be wrong with a topology.

TopologyError(ValueError)
├── MachineFileError    a machine description breaks the format: source and place
├── WireError           an annotation does not decode: key and place
├── ModelError          values that contradict each other
└── SelectionError      a request for a set that no choice can satisfy
"""

from __future__ import annotations


class TopologyError(ValueError):
    """The root of this package's errors."""


class MachineFileError(TopologyError):
    """A machine description breaks the format.

    `source` names the file, `place` the key inside it (``links[2][5]``), `problem` says what is
    wrong there.
    """

    def __init__(self, source: str, place: str, problem: str) -> None:
        super().__init__(f"{source}: {place}: {problem}" if place else f"{source}: {problem}")
        self.source = source
        self.place = place
        self.problem = problem


class WireError(TopologyError):
    """An annotation cannot be read. `key` names it, `problem` carries the place inside it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class ModelError(TopologyError):
    """The parts of a topology contradict each other."""


class SelectionError(TopologyError):
    """No GPU set can satisfy what was asked."""
