"""Calls filter for some seconds, from a process of its own: `python -m tests.bench.calling`.

Prints a JSON list of when each call began (monotonic seconds) and how many milliseconds it took.
"""

from __future__ import annotations

import sys
import time

import msgspec

from tests.bench.extender_world import Caller, filter_body

PAUSE: float = 0.005
"""Between two calls: kube-scheduler has work of its own."""


def main() -> None:
    """Call the port with so many node names for so many seconds."""
    port, nodes, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    names = [f"n{number:05}" for number in range(nodes)]
    caller = Caller(port)
    end = time.monotonic() + seconds
    taken: list[tuple[float, float]] = []
    while time.monotonic() < end:
        body = filter_body(f"c{len(taken)}", names)
        begun = time.monotonic()
        taken.append((begun, caller.time("filter", body)[0]))
        time.sleep(PAUSE)
    sys.stdout.write(msgspec.json.encode(taken).decode())


if __name__ == "__main__":
    main()
