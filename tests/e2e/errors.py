"""What the harness can fail of.

E2eError
├── MissingError    something that the machine has to have
└── StartError      a component that did not come up
"""

from __future__ import annotations


class E2eError(Exception):
    """The harness cannot do its work; the text says why."""


class MissingError(E2eError):
    """The machine lacks something."""


class StartError(E2eError):
    """A component did not come up, or ended."""
