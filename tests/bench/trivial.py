"""An extender that places nothing: the first node will do, and its Binding says no more than that.

What any extender in this language costs kube-scheduler before it has thought about anything.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.kube_aio import AioKubeClient, connect_aio
from scheduler.extender.wire import (
    BindResult,
    FilterResult,
    decode_args,
    decode_bind,
    decode_names,
    encode,
)

_JSON = "application/json"


def build(client: AioKubeClient) -> Starlette:
    """Return the application: filter and bind."""

    async def filter_(request: Request) -> Response:
        """Answer with the first name."""
        args = decode_args("filter", await request.body())
        names = decode_names("filter", args.node_names)[:1]
        return Response(encode(FilterResult(node_names=names)), media_type=_JSON)

    async def bind(request: Request) -> Response:
        """Write a Binding without a set."""
        asked = decode_bind(await request.body())
        path = f"/api/v1/namespaces/{asked.pod_namespace}/pods/{asked.pod_name}/binding"
        binding: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": asked.pod_name, "uid": asked.pod_uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": asked.node},
        }
        await client.post(path, binding)
        return Response(encode(BindResult()), media_type=_JSON)

    async def ready(_: Request) -> Response:
        """Say that it listens."""
        return Response()

    return Starlette(
        routes=[
            Route("/filter", filter_, methods=["POST"]),
            Route("/bind", bind, methods=["POST"]),
            Route("/readyz", ready),
        ]
    )


async def serve(kubeconfig: str, port: int) -> None:
    """Serve on a loopback port, with the extender's own server settings."""
    config = uvicorn.Config(
        build(await connect_aio(kubeconfig)),
        host="127.0.0.1",
        port=port,
        http="httptools",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
