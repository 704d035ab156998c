"""Logs of a process: one JSON object a line on standard error, whoever speaks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from runtime import logs

PROGRAM = """
import logging, sys, threading
import structlog
from runtime import logs
early = structlog.get_logger("early")
logs.setup("info", **({"json": None} | eval(sys.argv[1])), component="test")
logs.setup("info", **({"json": None} | eval(sys.argv[1])), component="test")
early.info("ours", number=1, path=object)
threading.Thread(target=lambda: early.warning("from a thread")).start()
early.debug("too quiet")
logging.getLogger("grpc._server").error("theirs %s", "formatted")
logging.getLogger("urllib3.connectionpool").warning("too chatty")
try:
    1 / 0
except ZeroDivisionError:
    early.exception("failed")
    logging.getLogger("uvicorn.error").exception("failed there")
"""


def run(arguments: str) -> tuple[str, str]:
    """Run the program and return its output and errors."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], check=True, capture_output=True, text=True
    )
    return ran.stdout, ran.stderr


def test_every_line_is_one_json_object_with_the_bound_values() -> None:
    """Ours and other libraries' events have the same form; standard output stays empty."""
    out, err = run("{}")
    events = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [event["event"] for event in events] == [
        "ours",
        "from a thread",
        "theirs formatted",
        "failed",
        "failed there",
    ]
    assert {event["component"] for event in events} == {"test"}
    assert [event["level"] for event in events[:3]] == ["info", "warning", "error"]
    assert [event["logger"] for event in events[:3]] == ["early", "early", "grpc._server"]
    assert events[0]["number"] == 1
    assert all("timestamp" in event for event in events)
    for event in events[3:]:
        assert event["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_people_get_lines_to_read() -> None:
    """Without JSON an event is a line of text."""
    _, err = run("{'json': False}")
    assert "ours" in err
    assert "number=1" in err
    assert not err.startswith("{")


def test_an_unknown_level_is_refused() -> None:
    """The error names what there is."""
    with pytest.raises(ValueError, match="want one of debug, info, warning, error"):
        logs.setup("loud")
