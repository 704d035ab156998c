"""A handler that parses a filter call and sends its names back: what the protocol alone costs."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.extender.wire import FilterResult, decode_args, decode_names, encode


async def filter_(request: Request) -> Response:
    """Answer with the names or whole nodes that were asked about."""
    args = decode_args("filter", await request.body())
    if args.nodes is None:
        result = FilterResult(node_names=decode_names("filter", args.node_names))
    else:
        result = FilterResult(nodes=args.nodes)
    return Response(encode(result), media_type="application/json")


def main() -> None:
    """Serve on the loopback port that is named, with the extender's own server settings."""
    uvicorn.run(
        Starlette(routes=[Route("/filter", filter_, methods=["POST"])]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
