"""One log format for our events and for those of uvicorn, grpc, kubernetes and urllib3.

JSON, one object a line, unless standard error is a terminal; then for people. Everything goes to
standard error: standard output belongs to answers. Never log whole objects or tokens.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog

LEVELS = ("debug", "info", "warning", "error")

_LOUD = {
    # Each request, each reconnect and each idle pool would be a line.
    "urllib3": logging.ERROR,
    "kubernetes": logging.WARNING,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}


def setup(level: str = "info", json: bool | None = None, **bound: object) -> None:
    """Send all logging through one chain; `json` None decides by whether a terminal listens.

    `bound` stands in every event (``component="device-plugin", node="n1"``). May be called
    again. Raises ValueError for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r}: want one of {', '.join(LEVELS)}")
    threshold = getattr(logging, level.upper())
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        _adder(bound),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    drawn: list[structlog.typing.Processor]
    if json if json is not None else not terminal:
        drawn = [structlog.processors.dict_tracebacks, _render]
    else:
        drawn = [structlog.dev.ConsoleRenderer(colors=terminal)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *drawn],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name, at_least in _LOUD.items():
        logging.getLogger(name).setLevel(max(threshold, at_least))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _adder(bound: dict[str, object]) -> structlog.typing.Processor:
    # Not context variables: a new thread starts without them.
    def add(
        _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**bound, **event}

    return add


def _render(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    return msgspec.json.encode(event, enc_hook=repr, order=None).decode()
