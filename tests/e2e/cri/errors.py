"""What can go wrong in the books of the fake runtime.

CriError
├── UnknownIdError   no such sandbox or container
└── WrongStateError  what is asked does not fit what the sandbox or container is doing
"""

from __future__ import annotations


class CriError(Exception):
    """A call that a container runtime refuses."""


class UnknownIdError(CriError, LookupError):
    """No sandbox or container has this ID, or this name."""


class WrongStateError(CriError, ValueError):
    """The sandbox or container is not in a state for this."""
