"""Running the tools that an image is made with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from daemonset.images.errors import ImageError


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises ImageError with its complaint, or when there is no such command.
    """
    if shutil.which(command[0]) is None:
        raise ImageError(f"{command[0]} is not on the PATH")
    done = subprocess.run(  # noqa: S603 -- our own commands, without a shell
        command, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise ImageError(f"{' '.join(command[:4])} failed: {said}")
    return done.stdout
