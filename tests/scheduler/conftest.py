"""A town: the embedded API server, the extender's parts in this event loop, HTTP in between.

The only fake is `Border`, which stands between the binder and the real client: it can delay what
is sent or lose what is answered, as networks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from embedded.apiserver import ApiServer
from runtime.errors import UnreachableError
from runtime.kube_aio import AioKubeClient, connect_aio
from runtime.objects import Node, Pod
from runtime.reflector import AioReflector
from scheduler.engine.plugins import built_in
from scheduler.extender import app
from scheduler.main import build, build_mix, build_profiles
from scheduler.parts import Extender
from scheduler.settings import ExtenderSettings
from tests.scheduler.nodes import node_object, pod_object
from topology.wire import ASSIGNMENT_KEY, decode_assignment

SETTINGS = ExtenderSettings(bind_timeout_seconds=0.5)
PAUSES = (0.02,)


class Border:
    """What the binder talks to. Cleared gates hold its calls; `lose_answers` cuts after sending."""

    def __init__(self, client: AioKubeClient) -> None:
        self.client = client
        self.sends = asyncio.Event()
        self.answers = asyncio.Event()
        self.sends.set()
        self.answers.set()
        self.lose_answers = False
        self.posts = 0
        self.gets = 0

    async def get(self, path: str, *, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 -- the client's
        """Read."""
        self.gets += 1
        return await self.client.get(path, timeout=timeout)

    async def post(self, path: str, body: object, *, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 -- as the client has it
        """Create, through the gates."""
        self.posts += 1
        await self.sends.wait()
        answer = await self.client.post(path, body, timeout=timeout)
        if self.lose_answers:
            raise UnreachableError("POST: the connection was reset")
        await self.answers.wait()
        return answer


class Town:
    """A cluster with an extender, spoken to over HTTP."""

    def __init__(
        self,
        api: ApiServer,
        client: AioKubeClient,
        border: Border,
        extender: Extender,
        registry: CollectorRegistry,
    ) -> None:
        self.api = api
        self.client = client
        self.border = border
        self.extender = extender
        self.registry = registry
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app.build(extender.handlers, extender.metrics)),
            base_url="http://extender",
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Watch, and wait until the inventory is complete."""
        inventory = self.extender.inventory
        for path, kind, sink in (
            ("/api/v1/nodes", Node, self.extender.nodes),
            ("/api/v1/pods", Pod, self.extender.pods),
        ):
            reflector: AioReflector[Any] = AioReflector(
                self.client,
                path,
                kind,  # type: ignore[arg-type]  # one of two pairs
                sink,
            )
            self._tasks.append(asyncio.create_task(reflector.run()))
        await self.until(lambda: inventory.synced)

    async def close(self) -> None:
        """Stop everything."""
        await self.extender.binder.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()

    async def until(self, predicate: Callable[[], object], what: str = "") -> None:
        """Return as soon as `predicate` is true; fail after 5 s."""
        end = asyncio.get_running_loop().time() + 5
        while not predicate():
            assert asyncio.get_running_loop().time() < end, f"not within 5 s: {what or predicate}"
            await asyncio.sleep(0.005)

    async def node(self, *args: Any, **given: Any) -> None:
        """Create a node and wait until the extender knows it."""
        made = node_object(*args, **given)
        await self.client.post("/api/v1/nodes", made)
        await self.until(lambda: self.extender.inventory.knows(made["metadata"]["name"]))

    async def pod(self, *args: Any, **given: Any) -> dict[str, Any]:
        """Create a pod; returns it with its uid."""
        made = pod_object(*args, **given)
        await self._classify(made["spec"])
        answer = await self.client.post("/api/v1/namespaces/default/pods", made)
        created: dict[str, Any] = msgspec.json.decode(answer)
        return created

    async def _classify(self, spec: dict[str, Any]) -> None:
        """Give a pod a class of the priority and preemption policy that are wanted."""
        wanted = {key: spec.pop(key) for key in ("priority", "preemptionPolicy") if key in spec}
        if wanted:
            name = spec["priorityClassName"] = "-".join(map(str, wanted.values())).lower()
            value = {"value": wanted.pop("priority", 0), **wanted}
            made = {"metadata": {"name": name}, **value}
            await self.client.post("/apis/scheduling.k8s.io/v1/priorityclasses", made)

    async def read(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Read a pod back."""
        path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
        found: dict[str, Any] = msgspec.json.decode(await self.client.get(path))
        return found

    async def assigned(self, pod: dict[str, Any]) -> frozenset[str] | None:
        """Return the GPUs in a pod's annotation, None if it is not bound."""
        found = await self.read(pod)
        if not found["spec"].get("nodeName"):
            return None
        raw = found["metadata"].get("annotations", {}).get(ASSIGNMENT_KEY)
        return frozenset() if raw is None else decode_assignment(raw).uuids()

    async def filter(self, pod: dict[str, Any], *names: str) -> dict[str, Any]:
        """Ask by names."""
        return await self.post("filter", {"Pod": pod, "Nodes": None, "NodeNames": list(names)})

    async def bind(self, pod: dict[str, Any], node: str) -> str:
        """Bind; returns the error."""
        meta = pod["metadata"]
        answer = await self.post(
            "bind",
            {
                "PodName": meta["name"],
                "PodNamespace": meta["namespace"],
                "PodUID": meta["uid"],
                "Node": node,
            },
        )
        return str(answer["Error"])

    async def post(self, verb: str, body: object) -> Any:
        """Call a verb and decode its answer."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = await self.http.post(f"/{verb}", content=content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def free(self, node: str) -> int:
        """Return how many GPUs of a node are free."""
        return int(self.extender.cluster.view([node]).free[0])


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Run an API server."""
    server = ApiServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def client(api: ApiServer, tmp_path: Path) -> AsyncIterator[AioKubeClient]:
    """Connect to it."""
    connected = await connect_aio(str(api.write_kubeconfig(tmp_path / "kubeconfig")))
    yield connected
    await connected.close()


def make_town(
    api: ApiServer,
    client: AioKubeClient,
    settings: ExtenderSettings = SETTINGS,
    border: Border | None = None,
) -> Town:
    """Build an extender for the API server."""
    border = border or Border(client)
    registry = CollectorRegistry()
    extender = build(
        settings,
        build_profiles(settings, built_in()),
        build_mix(settings),
        border,
        registry,
        pauses=PAUSES,
    )
    return Town(api, client, border, extender, registry)


@pytest.fixture
async def town(api: ApiServer, client: AioKubeClient) -> AsyncIterator[Town]:
    """Open a town, empty."""
    made = make_town(api, client)
    await made.open()
    yield made
    await made.close()
