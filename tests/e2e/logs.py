"""What is kept of a run that failed: the logs of all components, where the user's cache is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from tests.e2e.components import cache_folder

_KEPT_RUNS: Final = 20


def keep_logs(folder: Path, name: str) -> Path:
    """Copy every log below `folder` to a place that outlives the sandbox; return that place.

    Of earlier runs the last 20 are kept.
    """
    place = cache_folder() / "e2e-logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    for log in sorted(folder.rglob("*.log")):
        if log.is_file():
            copy = place / log.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, copy)
    for old in sorted(place.parent.iterdir())[:-_KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    return place
