"""A bearer token from a file that may change while the daemon runs."""

from __future__ import annotations

import hmac
from pathlib import Path

import structlog

_log = structlog.get_logger("scheduler.explain")


class TokenFileError(ValueError):
    """A token file has no token in it."""


class TokenFile:
    """The token of a file. Raises OSError or TokenFileError if it does not read.

    The kubelet replaces the file of a Secret, and that of its own tokens before they expire: it is
    read again when its time or size changes. A file that does not read then leaves the last token
    in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _version(path)
        self._token = _read(path)

    def fits(self, given: str) -> bool:
        """Return whether it is the token, in the same time whatever is given."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    @property
    def token(self) -> str:
        """The token that is in force."""
        try:
            seen = _version(self._path)
            if seen != self._seen:
                self._token, self._seen = _read(self._path), seen
        except (OSError, TokenFileError) as error:
            _log.warning("the token file does not read", path=str(self._path), error=str(error))
        return self._token


def _version(path: Path) -> tuple[int, int]:
    known = path.stat()
    return known.st_mtime_ns, known.st_size


def _read(path: Path) -> str:
    text = path.read_bytes().decode(errors="replace").strip()
    if not text or not text.isprintable():
        raise TokenFileError(f"{path}: there is no token in it")
    return text
