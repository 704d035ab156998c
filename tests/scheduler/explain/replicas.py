"""Replicas of the scheduler: APIs and pages on real ports, and the Lease that says who decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from runtime.errors import NotFoundError
from runtime.kube_aio import AioKubeClient
from scheduler.explain.leader import Leader
from scheduler.explain.relay import Relay
from scheduler.explain.tokens import TokenFile
from scheduler.serving import listen, make_wary_server, serve
from tests.scheduler.nodes import pod_object

LEASES = "/apis/coordination.k8s.io/v1/namespaces/gputopo-system/leases"
PODS = "/api/v1/namespaces/gputopo-system/pods"


@asynccontextmanager
async def serve_on(host: str, application: Starlette) -> AsyncIterator[int]:
    """Serve on a free port of the host as the extender does."""
    with listen(host, 0) as listener:
        serving = asyncio.create_task(serve(make_wary_server(application), listener))
        try:
            yield listener.getsockname()[1]
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def lead(client: AioKubeClient, holder: str) -> None:
    """Let a pod hold the Lease."""
    spec = {"spec": {"holderIdentity": holder}}
    try:
        await client.patch(f"{LEASES}/gputopo-scheduler", spec)
    except NotFoundError:
        await client.post(LEASES, {"metadata": {"name": "gputopo-scheduler"}, **spec})


async def add_pod(client: AioKubeClient, name: str, address: str | None) -> None:
    """Create a replica's pod with an address."""
    pod = pod_object(name, 0)
    pod["metadata"]["namespace"] = "gputopo-system"
    await client.post(PODS, pod)
    if address is not None:
        await client.patch(f"{PODS}/{name}/status", {"status": {"podIP": address}})


@asynccontextmanager
async def relaying(
    client: AioKubeClient,
    port: int,
    *,
    me: str = "us",
    reachable: bool = True,
    token: TokenFile | None = None,
) -> AsyncIterator[Relay]:
    """Let the pod `me` hand on questions to whoever holds the Lease."""
    clock = asyncio.get_running_loop().time
    leader = Leader(client, "gputopo-system/gputopo-scheduler", me=me, clock=clock)
    relay = Relay(leader, port=port, reachable=reachable, token=token)
    living = asyncio.create_task(relay.live())
    await asyncio.sleep(0)
    try:
        yield relay
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
