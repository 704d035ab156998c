"""How a subcommand tells the user of a mistake: one line on standard error, exit code 2."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import msgspec
import typer

from runtime.errors import SettingsError
from topology.errors import TopologyError


@contextlib.contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Turn the errors that bad input causes, and `others`, into one line and exit code 2."""
    expected: tuple[type[Exception], ...] = (TopologyError, SettingsError, OSError, *others)
    try:
        yield
    except SettingsError as error:
        print(f"gputopo: {'; '.join(error.problems)}", file=sys.stderr)
        raise typer.Exit(2) from None
    except expected as error:
        print(f"gputopo: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None


def print_json(value: object) -> None:
    """Print one JSON object and nothing else on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
